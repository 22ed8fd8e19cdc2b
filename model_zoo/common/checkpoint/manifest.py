"""Checksums of the files of a folder, in the format of sha256sum.

The first line, a comment for sha256sum, is the checksum of the others:

    # 3f0c...                       (the SHA-256 of all lines below)
    9b1d...  network.ckpt
    77aa...  state.ckpt
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from model_zoo.common.durable_files import write_bytes
from model_zoo.common.errors import CheckpointError

MANIFEST_FILE = "manifest.sha256"

_PORTION = 1 << 20
_COMMENT = "# "


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while portion := file.read(_PORTION):
            digest.update(portion)
    return digest.hexdigest()


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Writes the checksums of files.

    Args:
        folder: the folder of the files and of the manifest.
        names: the names of the files.
    """
    lines = "".join(f"{_checksum(folder / name)}  {name}\n" for name in sorted(names)).encode("utf-8")
    head = f"{_COMMENT}{hashlib.sha256(lines).hexdigest()}\n".encode("ascii")
    write_bytes(folder / MANIFEST_FILE, head + lines)


def _read_manifest(folder: Path) -> dict[str, str] | None:
    """The checksum of each file; None if the manifest is damaged."""
    head, newline, lines = (folder / MANIFEST_FILE).read_bytes().partition(b"\n")
    if not newline or head.decode("latin-1") != _COMMENT + hashlib.sha256(lines).hexdigest():
        return None
    return {
        name: checksum for checksum, name in (line.split("  ", 1) for line in lines.decode().splitlines())
    }


def damage(folder: Path, only: str | None = None) -> str | None:
    """Compares files with the manifest of their folder.

    Args:
        folder: the folder.
        only: the file to compare, if the manifest lists it. Default: None, all files of the manifest.

    Returns:
        What is wrong, to be put behind the name of the folder, such as "lacks state.ckpt"; None if all
        files are as they were written.
    """
    name = MANIFEST_FILE
    try:
        manifest = _read_manifest(folder)
        if manifest is None:
            return f"has a damaged {name}"
        for name, checksum in manifest.items():
            if only in (None, name) and _checksum(folder / name) != checksum:
                return f"has a damaged {name}"
    except FileNotFoundError:
        return f"lacks {name}"
    except OSError as error:
        return f"has an unreadable {name} ({error.strerror})"
    return None


def check_file(path: Path) -> None:
    """Compares a file with the manifest next to it, if there is one.

    Args:
        path: the file.

    Raises:
        CheckpointError: the file or the manifest is damaged.
    """
    if (path.parent / MANIFEST_FILE).exists():
        problem = damage(path.parent, path.name)
        if problem is not None:
            raise CheckpointError(f"{path.parent} {problem}.")
