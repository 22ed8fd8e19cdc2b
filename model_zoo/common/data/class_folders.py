"""Image files in one folder per class: train/<class>/ and val/<class>/ (or test/<class>/)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_zoo.common.data.encoded import EncodedImage
from model_zoo.common.data.folders import A_FILE, A_FOLDER, kind_of_file, read_bytes
from model_zoo.common.errors import DataError

TITLE = "An image folder"
TRAIN_FOLDER = "train"
# val takes precedence, because ImageNet's test folder has no labels.
TEST_FOLDERS = ("val", "test")
SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")


class FolderSplit:
    """The files of one split, sorted by class and name.

    Args:
        folder: the folder that the paths are relative to.
        paths: the files.
        labels: the class of each file.
    """

    def __init__(self, folder: Path, paths: list[str], labels: NDArray[np.int32]) -> None:
        self.folder = folder
        self.paths = paths
        self.labels = labels

    def __len__(self) -> int:
        """The number of files."""
        return len(self.paths)

    def images(self, numbers: Sequence[int]) -> Iterator[EncodedImage]:
        """The images with the given indices, in that order."""
        for number in numbers:
            path = self.folder / self.paths[number]
            yield EncodedImage(str(path), int(self.labels[number]), partial(read_bytes, TITLE, path))


def split_folders(data_dir: Path | None) -> tuple[Path, Path]:
    """Finds the training and the test folder.

    Args:
        data_dir: the value of --data-dir.

    Returns:
        The training folder and the test folder.

    Raises:
        DataError: a folder is missing.
    """
    wanted = f"{TRAIN_FOLDER} and {' or '.join(TEST_FOLDERS)}, each with one folder per class"
    if data_dir is None:
        raise DataError(f"{TITLE} needs --data-dir, a folder that holds {wanted}.")
    if not data_dir.is_dir():
        raise DataError(f"{TITLE} was not found: {data_dir} is not a folder.")
    tests = [data_dir / name for name in TEST_FOLDERS if (data_dir / name).is_dir()]
    if not (data_dir / TRAIN_FOLDER).is_dir() or not tests:
        raise DataError(f"{TITLE} was not found: {data_dir} does not contain {wanted}.")
    return data_dir / TRAIN_FOLDER, tests[0]


def class_names(folder: Path) -> tuple[str, ...]:
    """The class names of a split, sorted; names that start with a dot are ignored.

    Args:
        folder: the split's folder.

    Returns:
        The names of the class folders.

    Raises:
        DataError: there is no class folder, or a file next to them.
    """
    entries = _entries(folder)
    for entry in entries:
        kind = _kind(entry)
        if kind != A_FOLDER:
            raise DataError(f"{TITLE}: {entry.path} is {kind}; only class folders are accepted here.")
    if not entries:
        raise DataError(f"{TITLE}: {folder} has no class folder.")
    return tuple(entry.name for entry in entries)


def read_split(folder: Path, classes: Sequence[str]) -> FolderSplit:
    """Lists the files of a split.

    Args:
        folder: the split's folder.
        classes: the class names; the index of a name is its label.

    Returns:
        The split.

    Raises:
        DataError: a folder is not one of the classes or is empty, or it contains a folder or a file that is
            not an image file.
    """
    labels = {name: label for label, name in enumerate(classes)}
    paths: list[str] = []
    counts = np.zeros(len(classes), np.int64)
    for name in class_names(folder):
        if name not in labels:
            raise DataError(f"{TITLE}: {folder / name} is a class without training images.")
        entries = _entries(folder / name)
        if not entries:
            raise DataError(f"{TITLE}: {folder / name} is empty; remove it, or add images.")
        for entry in entries:
            kind = _kind(entry)
            if kind != A_FILE or not entry.name.lower().endswith(SUFFIXES):
                what = "not an image" if kind == A_FILE else kind
                raise DataError(
                    f"{TITLE}: {entry.path} is {what}; accepted in a class folder: "
                    f"files that end in {', '.join(SUFFIXES)}."
                )
            paths.append(f"{name}/{entry.name}")
        counts[labels[name]] = len(entries)
    # `counts` follows the labels and `paths` the folders: both are sorted by name.
    return FolderSplit(folder, paths, np.repeat(np.arange(len(classes), dtype=np.int32), counts))


def read_folders(data_dir: Path | None) -> tuple[FolderSplit, FolderSplit, tuple[str, ...]]:
    """Lists both splits.

    Args:
        data_dir: the value of --data-dir.

    Returns:
        The training split, the test split and the class names.
    """
    train, test = split_folders(data_dir)
    classes = class_names(train)
    return read_split(train, classes), read_split(test, classes), classes


def _kind(entry: os.DirEntry[str]) -> str:
    # Known from the listing, which saves the system call for nearly every file.
    if entry.is_file(follow_symlinks=False):
        return A_FILE
    try:
        mode = entry.stat().st_mode
    except OSError:
        # The link itself, which leads nowhere or to itself.
        mode = entry.stat(follow_symlinks=False).st_mode
    return kind_of_file(mode)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name
            )
    except OSError as error:
        raise DataError(f"{TITLE}: {folder} can't be read: {error.strerror}.") from error
