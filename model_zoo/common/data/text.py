"""Texts in memory, and the windows of bytes that a network reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_zoo.common.data.batched import Batch
from model_zoo.common.errors import DataError
from model_zoo.common.options.data import TextWindows

BYTES = 256


@dataclass(frozen=True)
class TextDataSet:
    """A text in bytes, read in windows.

    Attributes:
        title: its name in messages.
        options: the recipe's data section.
        train: the training bytes.
        test: the bytes that are held out.
        train_files: the names of the files of the training bytes.
        test_files: the names of the files of the test bytes.
        classes: the number of ids.
    """

    title: str
    options: TextWindows
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    classes: int = BYTES

    def describe(self) -> dict[str, Any]:
        """The data entry of run.json; runs on equal texts have equal checksums."""
        return {
            "title": self.title,
            "training_files": len(self.train_files),
            "test_files": len(self.test_files),
            "training_bytes": len(self.train),
            "test_bytes": len(self.test),
            "sha256": hashlib.sha256(self.train.tobytes() + self.test.tobytes()).hexdigest(),
        }

    def __post_init__(self) -> None:
        """Checks that each split has a window.

        Raises:
            DataError: a split is shorter than one window and its next byte.
        """
        for split in ("train", "test"):
            if self.places(split) < 1:
                raise DataError(
                    f"{self.title} has {len(self.bytes_of(split)):,} {split} bytes, too few for one window "
                    f"and its next byte (data.window {self.options.window})."
                )

    def bytes_of(self, split: str) -> NDArray[np.uint8]:
        """The bytes of the split "train" or "test"."""
        return self.train if split == "train" else self.test

    def places(self, split: str) -> int:
        """The number of places at which a window and its next byte can start."""
        return len(self.bytes_of(split)) - self.options.window

    def evaluation_starts(self, split: str) -> NDArray[np.int64]:
        """The starts of the windows of an evaluation: in order, without overlap, evenly spaced.

        Args:
            split: "train" or "test".

        Returns:
            The starts.
        """
        count = (self.places(split) - 1) // self.options.window + 1
        taken = min(self.options.evaluation_windows or count, count)
        return np.arange(taken, dtype=np.int64) * count // taken * self.options.window

    def batches(self, split: str, plan: Iterable[NDArray[np.int64]]) -> Iterator[Batch]:
        """Cuts windows out of the text.

        Args:
            split: "train" or "test".
            plan: the starts of each batch's windows.

        Yields:
            The ids of a batch's windows, int32 of shape (N, window), and the ids one byte later.
        """
        text = self.bytes_of(split)
        for starts in plan:
            rows = text[starts[:, None] + np.arange(self.options.window + 1)].astype(np.int32)
            yield np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])
