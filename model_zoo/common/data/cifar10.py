"""CIFAR-10 in its binary layout: see cifar_records.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_zoo.common.data.cifar_records import read_records
from model_zoo.common.data.folders import find_folder
from model_zoo.common.data.splits import CLASSES, DataSet, Split

TITLE = "CIFAR-10"
TRAIN_FILES = tuple(f"data_batch_{batch}.bin" for batch in range(1, 6))
TEST_FILE = "test_batch.bin"
SUBFOLDER = "cifar-10-batches-bin"

# Of the 50,000 training images, in 0 to 255.
MEAN = (125.31, 122.95, 113.87)
DEVIATION = (62.99, 62.09, 66.70)


def read_batch(path: Path) -> Split:
    """Reads one file of records.

    Args:
        path: the file.

    Returns:
        Images of shape (N, 32, 32, 3) and their labels.
    """
    return read_records(TITLE, path, {"label": CLASSES})


def load(data_dir: Path | None) -> DataSet:
    """Reads the five training files and the test file.

    Args:
        data_dir: the folder that holds them, or its parent.

    Returns:
        The data set.
    """
    folder = find_folder(TITLE, data_dir, SUBFOLDER, (*TRAIN_FILES, TEST_FILE))
    batches = [read_batch(folder / name) for name in TRAIN_FILES]
    train = Split(np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches]))
    return DataSet(TITLE, train, read_batch(folder / TEST_FILE), MEAN, DEVIATION)
