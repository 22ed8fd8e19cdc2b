"""Fingerprint of the kernel sources. setup.py also runs this file, without importing the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

# In an installed package, which has no sources: one line per device, with its folder and its fingerprint.
STORED = "_fingerprints.txt"
SUFFIXES = (".cc", ".cu", ".cuh", ".h")


def fingerprint(*folders: Path) -> str:
    """Compute a digest of the kernel sources.

    It detects a library built from different sources, whose kernels may take arguments in another order.

    Args:
        *folders: the source folders, in one parent folder.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES):
            name = path.relative_to(folder.parent).as_posix()
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def expected_fingerprint(sources: Path) -> str:
    """Compute the fingerprint of a device's sources, or read it where the package was installed without them.

    Args:
        sources: the device's folder next to ``interface``, such as ``kernels/cpu``.

    Returns:
        16 hexadecimal digits.
    """
    if sources.is_dir():
        return fingerprint(sources.parent / "interface", sources)
    lines = (sources.parent / STORED).read_text(encoding="ascii").splitlines()
    return dict(line.split() for line in lines)[sources.name]
