"""Scikit-learn's digits (1,797 scans of 8x8 pixels, included in the library), as 32x32 RGB images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from model_zoo.common.data.splits import DataSet, Split

# Of the training split below, in 0 to 255; the three channels are equal.
MEAN = 77.94
DEVIATION = 82.50

_TEST_SHARE = 0.2
_SPLIT_SEED = 0


def _enlarge(scan: NDArray[np.float64]) -> NDArray[np.uint8]:
    grey = Image.fromarray(np.rint(scan * (255 / 16)).astype(np.uint8))
    enlarged = np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR))
    return np.repeat(enlarged[..., None], 3, axis=2)


def load() -> DataSet:
    """The digits, split 80/20 by class with a fixed seed, so that all recipes use the same split."""
    digits = load_digits()
    images = np.stack([_enlarge(scan) for scan in digits.images])
    labels = digits.target.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=_TEST_SHARE, stratify=labels, random_state=_SPLIT_SEED
    )
    return DataSet(
        "digits",
        Split(images[train], labels[train]),
        Split(images[test], labels[test]),
        (MEAN,) * 3,
        (DEVIATION,) * 3,
    )
