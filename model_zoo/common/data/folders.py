"""Finds and reads the files of a data folder, with one clear sentence when something is not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_zoo.common.errors import DataError


def find_folder(title: str, data_dir: Path | None, subfolder: str, names: Sequence[str]) -> Path:
    """The folder that holds the files: `data_dir` itself, or `subfolder` in it.

    Args:
        title: the data set's name, for messages.
        data_dir: what --data-dir gave.
        subfolder: the name under which the data set is usually unpacked.
        names: the files that must be there.

    Returns:
        The folder that holds all of them.

    Raises:
        DataError: no folder was given, or neither candidate holds all the files.
    """
    if data_dir is None:
        raise DataError(
            f"{title} needs --data-dir, a folder that holds {', '.join(names)}, or the parent of such a "
            f"folder named {subfolder}."
        )
    if not data_dir.is_dir():
        raise DataError(f"{title} was looked for in {data_dir}, which is no folder.")
    candidates = [data_dir, data_dir / subfolder]
    missing = {folder: [name for name in names if not (folder / name).is_file()] for folder in candidates}
    for folder in candidates:
        if not missing[folder]:
            return folder
    # The fuller of the two is the one that was meant.
    meant = min(candidates, key=lambda folder: len(missing[folder]))
    if len(missing[meant]) == len(names):
        raise DataError(
            f"{title} was looked for in {data_dir} and {data_dir / subfolder}: "
            f"neither holds {', '.join(names)}."
        )
    raise DataError(f"{title} was looked for in {meant}, which lacks {', '.join(missing[meant])}.")


def read_bytes(title: str, path: Path) -> bytes:
    """The content of a file.

    Args:
        title: the data set's name, for messages.
        path: the file.

    Returns:
        Its bytes.

    Raises:
        DataError: it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{title}: {path} can't be read: {error.strerror}.") from error
