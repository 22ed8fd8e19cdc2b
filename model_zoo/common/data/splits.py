"""In-memory data sets: images and labels."""

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
    """A data set and the statistics that normalize it.

    Attributes:
        title: its name in messages.
        train: the training split.
        test: the test split.
        mean: mean of the training pixels per channel, in 0 to 255.
        deviation: standard deviation of the training pixels per channel, in 0 to 255.
        classes: the number of classes.
    """

    title: str
    train: Split
    test: Split
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    classes: int = CLASSES

    def describe(self) -> dict[str, Any]:
        """The data entry of run.json."""
        return {
            "title": self.title,
            "training_images": self.training_images,
            "test_images": self.test_images,
            "classes": self.classes,
        }

    @property
    def training_images(self) -> int:
        """The number of training images."""
        return len(self.train.labels)

    @property
    def test_images(self) -> int:
        """The number of test images."""
        return len(self.test.labels)
