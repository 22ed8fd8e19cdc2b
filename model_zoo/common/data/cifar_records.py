"""The binary layout of CIFAR-10 and CIFAR-100.

A record is one label byte (CIFAR-10) or two (CIFAR-100: coarse, fine), followed by 3,072 bytes: the R, G and
B planes of a 32x32 image. A file may hold any number of records, which `mindspore.dataset.Cifar10Dataset`
does not accept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from model_zoo.common.data.folders import read_bytes
from model_zoo.common.data.splits import Split
from model_zoo.common.errors import DataError

SIDE = 32
PIXEL_BYTES = 3 * SIDE * SIDE


def read_records(title: str, path: Path, labels: Mapping[str, int]) -> Split:
    """Reads one file of records.

    Args:
        title: the data set's name, for messages.
        path: the file.
        labels: the name and the number of classes of each label byte; the last byte is the image's label.

    Returns:
        Images of shape (N, 32, 32, 3) and their labels.

    Raises:
        DataError: the file is empty or truncated, or a label is too large.
    """
    record_bytes = len(labels) + PIXEL_BYTES
    content = read_bytes(title, path)
    if not content or len(content) % record_bytes:
        raise DataError(
            f"{title}: {path} has {len(content):,} bytes, which is not a multiple of {record_bytes:,}-byte "
            "records; is it truncated?"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record_bytes)
    for place, (name, classes) in enumerate(labels.items()):
        high = records[:, place] >= classes
        if high.any():
            record = int(np.argmax(high))
            raise DataError(
                f"{title}: {path} has {name} {records[record, place]} in record {record}; "
                f"expected 0 to {classes - 1}."
            )
    planes = records[:, len(labels) :].reshape(-1, 3, SIDE, SIDE)
    return Split(
        np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, len(labels) - 1].astype(np.int32)
    )
