"""CIFAR-10 in its binary layout.

A record is a label byte and then 3,072 bytes: the R, G and B planes of a 32x32 image. Files of any number of
records are read, which `mindspore.dataset.Cifar10Dataset` refuses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_zoo.common.data.folders import find_folder, read_bytes
from model_zoo.common.data.splits import CLASSES, DataSet, Split
from model_zoo.common.errors import DataError

TITLE = "CIFAR-10"
TRAIN_FILES = tuple(f"data_batch_{batch}.bin" for batch in range(1, 6))
TEST_FILE = "test_batch.bin"
SUBFOLDER = "cifar-10-batches-bin"
RECORD_BYTES = 1 + 3 * 32 * 32

# Of the 50,000 training images, in bytes.
MEAN = (125.31, 122.95, 113.87)
DEVIATION = (62.99, 62.09, 66.70)


def read_batch(path: Path) -> Split:
    """Reads one file of records.

    Args:
        path: the file.

    Returns:
        Images of shape (N, 32, 32, 3) and their labels.

    Raises:
        DataError: the file is empty or cut off, or holds a label above 9.
    """
    content = read_bytes(TITLE, path)
    if not content or len(content) % RECORD_BYTES:
        raise DataError(
            f"{TITLE}: {path} holds {len(content):,} bytes, no whole number of {RECORD_BYTES:,}-byte "
            "records; is it cut off?"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    labels = records[:, 0].astype(np.int32)
    if labels.max() >= CLASSES:
        record = int(np.argmax(labels >= CLASSES))
        raise DataError(
            f"{TITLE}: {path} has the label {labels[record]} in record {record}, where 0 to 9 was looked for."
        )
    return Split(np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels)


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
