"""CIFAR-100 in its binary layout, with the 100 fine labels: see cifar_records.py."""

from __future__ import annotations

from pathlib import Path

from model_zoo.common.data.cifar_records import read_records
from model_zoo.common.data.folders import find_folder
from model_zoo.common.data.splits import DataSet, Split

TITLE = "CIFAR-100"
TRAIN_FILE, TEST_FILE = "train.bin", "test.bin"
SUBFOLDER = "cifar-100-binary"
COARSE_CLASSES, CLASSES = 20, 100

# Of the 50,000 training images, in 0 to 255.
MEAN = (129.30, 124.07, 112.43)
DEVIATION = (68.17, 65.39, 70.42)


def read_file(path: Path) -> Split:
    """Reads one file of records.

    Args:
        path: the file.

    Returns:
        Images of shape (N, 32, 32, 3) and their fine labels.
    """
    return read_records(TITLE, path, {"coarse label": COARSE_CLASSES, "fine label": CLASSES})


def load(data_dir: Path | None) -> DataSet:
    """Reads the training file and the test file.

    Args:
        data_dir: the folder that holds them, or its parent.

    Returns:
        The data set.
    """
    folder = find_folder(TITLE, data_dir, SUBFOLDER, (TRAIN_FILE, TEST_FILE))
    train, test = read_file(folder / TRAIN_FILE), read_file(folder / TEST_FILE)
    return DataSet(TITLE, train, test, MEAN, DEVIATION, CLASSES)
