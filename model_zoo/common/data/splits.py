"""Images and labels in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES = 10


@dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
        images: bytes of shape (N, height, width, channels) or (N, height, width).
        labels: int32 of shape (N,), from 0 to 9.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class DataSet:
    """A data set and the statistics that normalise it.

    Attributes:
        title: what to call it in print.
        train: the training split.
        test: the test split.
        mean: of the training pixels, a channel each, in bytes.
        deviation: standard deviation of the training pixels, a channel each, in bytes.
    """

    title: str
    train: Split
    test: Split
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
