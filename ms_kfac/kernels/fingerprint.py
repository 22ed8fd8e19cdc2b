"""Which sources a library of kernels was built from; setup.py runs it, too, without the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

SUFFIXES = (".cc", ".cu", ".cuh", ".h")


def fingerprint(*folders: Path) -> str:
    """A digest of the kernels' sources: a library built from others may take its arguments in another order.

    Args:
        *folders: the folders of the sources, side by side.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES):
            name = path.relative_to(folder.parent).as_posix()
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
