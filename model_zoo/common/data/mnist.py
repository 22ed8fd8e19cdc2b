"""MNIST from its idx files, at 28x28 or averaged to 14x14.

An idx file starts with a magic number (0, 0, type 8 for bytes, number of axes), then the length of each axis
as a big-endian 32-bit integer.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_zoo.common.data.folders import find_folder, read_bytes
from model_zoo.common.data.splits import CLASSES, DataSet, Split
from model_zoo.common.errors import DataError

TITLE = "MNIST"
SUBFOLDER = "mnist"
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

# Of the 60,000 training images, in 0 to 255.
MEAN = 33.32
DEVIATION = 78.57
DEVIATION_14 = 71.43


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Reads one idx file of bytes.

    Args:
        path: the file.
        axes: the required number of axes: 3 for images, 1 for labels.

    Returns:
        The array.

    Raises:
        DataError: the magic number is wrong, or the size does not match the header.
    """
    content = read_bytes(TITLE, path)
    magic = bytes([0, 0, 8, axes])
    start = 4 + 4 * axes
    if len(content) < start or content[:4] != magic:
        raise DataError(
            f"{TITLE}: {path} starts with the bytes {content[:4].hex(' ') or '(none)'}; "
            f"expected the idx header {magic.hex(' ')}."
        )
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", axes, offset=4))
    if len(content) != start + math.prod(shape):
        raise DataError(
            f"{TITLE}: {path} has {len(content):,} bytes, but its header "
            f"({' x '.join(map(str, shape))}) requires {start + math.prod(shape):,}; is it truncated?"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_split(images_path: Path, labels_path: Path) -> Split:
    """Reads images and their labels.

    Args:
        images_path: the idx file of images.
        labels_path: the idx file of labels.

    Returns:
        Images of shape (N, 28, 28) and their labels.

    Raises:
        DataError: a file is damaged, the numbers of images and labels differ, or a label is above 9.
    """
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (28, 28) or not len(images):
        raise DataError(f"{TITLE}: {images_path} has shape {images.shape}; expected N images of 28 x 28.")
    if len(images) != len(labels):
        raise DataError(
            f"{TITLE}: {images_path} holds {len(images):,} images, but {labels_path} {len(labels):,} labels."
        )
    if labels.max() >= CLASSES:
        record = int(np.argmax(labels >= CLASSES))
        raise DataError(f"{TITLE}: {labels_path} has label {labels[record]} at {record}; expected 0 to 9.")
    return Split(images, labels.astype(np.int32))


def halve(images: NDArray[np.uint8]) -> NDArray[Any]:
    """Averages 2x2 blocks of pixels: (N, 28, 28) to (N, 14, 14), rounded to bytes."""
    return np.rint(images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))).astype(np.uint8)


def load(data_dir: Path | None, side: int) -> DataSet:
    """Reads the four files.

    Args:
        data_dir: the folder that holds them, or its parent.
        side: 28, or 14 for averaged images.

    Returns:
        The data set.
    """
    folder = find_folder(TITLE, data_dir, SUBFOLDER, FILES)
    train = read_split(folder / FILES[0], folder / FILES[1])
    test = read_split(folder / FILES[2], folder / FILES[3])
    if side == 28:
        return DataSet(TITLE, train, test, (MEAN,), (DEVIATION,))
    train, test = (Split(halve(split.images), split.labels) for split in (train, test))
    return DataSet(f"{TITLE} 14x14", train, test, (MEAN,), (DEVIATION_14,))
