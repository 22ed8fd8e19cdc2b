"""Fingerprint of the kernel sources. setup.py also runs this file, without importing the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
