"""Images and labels in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = 10


@dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
        images: bytes of shape (N, height, width, channels) or (N, height, width).
        labels: int32 of shape (N,), from 0 to the number of classes - 1.
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
        classes: how many classes there are.
    """

    title: str
    train: Split
    test: Split
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    classes: int = CLASSES

    def describe(self) -> dict[str, Any]:
        """What run.json says of the data."""
        return {
            "title": self.title,
            "training_images": self.training_images,
            "test_images": self.test_images,
            "classes": self.classes,
        }

    @property
    def training_images(self) -> int:
        """How many images there are to train on."""
        return len(self.train.labels)

    @property
    def test_images(self) -> int:
        """How many images there are to test on."""
        return len(self.test.labels)
