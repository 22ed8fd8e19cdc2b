"""Files that are complete or absent: written aside, flushed to disk, and renamed into place."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# A folder, because MindSpore writes temporary files of its own next to the file that it saves.
_ASIDE = ".new-"


def sync(path: Path) -> None:
    """Flushes a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Writes a file so that a kill or a full disk leaves the old content or the new, never a part.

    Args:
        path: the file to write; an existing one is replaced when the `with` block ends without an exception.

    Yields:
        The file to write instead, with the same name.
    """
    aside = path.with_name(f"{_ASIDE}{path.name}")
    # A killed process leaves its folder.
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside / path.name
        sync(aside / path.name)
        os.replace(aside / path.name, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file by the given content."""
    with replacing(path) as new:
        new.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replaces a file by the given text."""
    write_bytes(path, content.encode("utf-8"))
