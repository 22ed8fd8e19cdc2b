"""Finds and reads the files of a data folder, with a clear error if one is missing."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from model_zoo.common.errors import DataError

A_FILE, A_FOLDER = "a file", "a folder"
_KINDS = {
    stat.S_IFREG: A_FILE,
    stat.S_IFDIR: A_FOLDER,
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a broken link",
}


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


def kind_of_file(mode: int) -> str:
    """What `os.stat` says that a path is, for messages: "a folder", "a named pipe" and so on."""
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def read_bytes(title: str, path: Path) -> bytes:
    """Reads a regular file. Nothing else is opened: a named pipe would wait forever, a device may act.

    Args:
        title: the data set's name, for messages.
        path: the file.

    Returns:
        Its bytes.

    Raises:
        DataError: the path is not a regular file, or can't be read.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise DataError(f"{title}: {path} is {kind_of_file(mode)}, not a regular file.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{title}: {path} can't be read: {error.strerror}.") from error
