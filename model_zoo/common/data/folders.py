"""Finds and reads the files of a data folder, with a clear error if one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_zoo.common.errors import DataError


def find_folder(title: str, data_dir: Path | None, subfolder: str, names: Sequence[str]) -> Path:
    """Finds the folder that contains the files: `data_dir` itself, or its `subfolder`.

    Args:
        title: the data set's name, for messages.
        data_dir: the value of --data-dir.
        subfolder: the usual folder name of the data set.
        names: the required files.

    Returns:
        The folder that contains all of them.

    Raises:
        DataError: no folder was given, or neither candidate contains all files.
    """
    if data_dir is None:
        raise DataError(
            f"{title} needs --data-dir, a folder that contains {', '.join(names)}, or the parent of such a "
            f"folder named {subfolder}."
        )
    if not data_dir.is_dir():
        raise DataError(f"{title} was not found: {data_dir} is not a folder.")
    candidates = [data_dir, data_dir / subfolder]
    missing = {folder: [name for name in names if not (folder / name).is_file()] for folder in candidates}
    for folder in candidates:
        if not missing[folder]:
            return folder
    # Reports the candidate with more files, which is probably the intended one.
    meant = min(candidates, key=lambda folder: len(missing[folder]))
    if len(missing[meant]) == len(names):
        raise DataError(
            f"{title} was not found: neither {data_dir} nor {data_dir / subfolder} contains "
            f"{', '.join(names)}."
        )
    raise DataError(f"{title} was not found: {meant} lacks {', '.join(missing[meant])}.")


def read_bytes(title: str, path: Path) -> bytes:
    """Reads a file.

    Args:
        title: the data set's name, for messages.
        path: the file.

    Returns:
        Its bytes.

    Raises:
        DataError: the file can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{title}: {path} can't be read: {error.strerror}.") from error
