"""Image files in a folder a class: train/<class>/ and val/<class>/, or test/<class>/ without a val."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_zoo.common.data.encoded import EncodedImage
from model_zoo.common.data.folders import read_bytes
from model_zoo.common.errors import DataError

TITLE = "An image folder"
TRAIN_FOLDER = "train"
# ImageNet's test folder has no labels: where there is a val folder, that is meant.
TEST_FOLDERS = ("val", "test")
SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")


class FolderSplit:
    """The files of one split, class by class, in the order of their names.

    Args:
        folder: what the paths are relative to.
        paths: of the files.
        labels: the class of each file.
    """

    def __init__(self, folder: Path, paths: list[str], labels: NDArray[np.int32]) -> None:
        self.folder = folder
        self.paths = paths
        self.labels = labels

    def __len__(self) -> int:
        """How many files there are."""
        return len(self.paths)

    def images(self, numbers: Sequence[int]) -> Iterator[EncodedImage]:
        """The images of these numbers, in this order."""
        for number in numbers:
            path = self.folder / self.paths[number]
            yield EncodedImage(str(path), int(self.labels[number]), partial(read_bytes, TITLE, path))


def split_folders(data_dir: Path | None) -> tuple[Path, Path]:
    """Finds the folders of both splits.

    Args:
        data_dir: what --data-dir gave.

    Returns:
        The folder of the training images, and that of the test images.

    Raises:
        DataError: there is no such folder.
    """
    wanted = f"{TRAIN_FOLDER} and {' or '.join(TEST_FOLDERS)}, with a folder a class in each"
    if data_dir is None:
        raise DataError(f"{TITLE} needs --data-dir, a folder that holds {wanted}.")
    if not data_dir.is_dir():
        raise DataError(f"{TITLE} was looked for in {data_dir}, which is no folder.")
    tests = [data_dir / name for name in TEST_FOLDERS if (data_dir / name).is_dir()]
    if not (data_dir / TRAIN_FOLDER).is_dir() or not tests:
        raise DataError(f"{TITLE} was looked for in {data_dir}, which does not hold {wanted}.")
    return data_dir / TRAIN_FOLDER, tests[0]


def class_names(folder: Path) -> tuple[str, ...]:
    """The classes of a split, in the order of their names; names that start with a dot are left out.

    Args:
        folder: the split's folder.

    Returns:
        The names of the folders in it.

    Raises:
        DataError: there is none, or a file lies beside them.
    """
    entries = _entries(folder)
    for entry in entries:
        if not entry.is_dir():
            raise DataError(f"{TITLE}: {entry.path} is a file where only folders of classes were looked for.")
    if not entries:
        raise DataError(f"{TITLE}: {folder} holds no folder of a class.")
    return tuple(entry.name for entry in entries)


def read_split(folder: Path, classes: Sequence[str]) -> FolderSplit:
    """Lists the files of a split.

    Args:
        folder: the split's folder.
        classes: the name of each class; its place is its label.

    Returns:
        The split.

    Raises:
        DataError: a folder's name is none of the classes, a folder is empty, or holds another folder or a
            file that is no image.
    """
    labels = {name: label for label, name in enumerate(classes)}
    paths: list[str] = []
    counts = np.zeros(len(classes), np.int64)
    for name in class_names(folder):
        if name not in labels:
            raise DataError(f"{TITLE}: {folder / name} is of a class that there are no training images of.")
        entries = _entries(folder / name)
        if not entries:
            raise DataError(f"{TITLE}: {folder / name} is empty; remove it, or put its images there.")
        for entry in entries:
            folder_there = entry.is_dir()
            if folder_there or not entry.name.lower().endswith(SUFFIXES):
                what = "a folder" if folder_there else "no image"
                raise DataError(
                    f"{TITLE}: {entry.path} is {what}; accepted in the folder of a class: "
                    f"files that end in {', '.join(SUFFIXES)}."
                )
            paths.append(f"{name}/{entry.name}")
        counts[labels[name]] = len(entries)
    # Classes are listed in the order of their labels: both are sorted by name.
    return FolderSplit(folder, paths, np.repeat(np.arange(len(classes), dtype=np.int32), counts))


def read_folders(data_dir: Path | None) -> tuple[FolderSplit, FolderSplit, tuple[str, ...]]:
    """Lists both splits.

    Args:
        data_dir: what --data-dir gave.

    Returns:
        The training split, the test split and the names of the classes.
    """
    train, test = split_folders(data_dir)
    classes = class_names(train)
    return read_split(train, classes), read_split(test, classes), classes


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name
            )
    except OSError as error:
        raise DataError(f"{TITLE}: {folder} can't be read: {error.strerror}.") from error
