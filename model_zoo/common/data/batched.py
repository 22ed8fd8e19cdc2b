"""A mindspore.dataset whose rows are whole batches made by NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import mindspore.dataset as ds
import numpy as np
from numpy.typing import NDArray

Batch = tuple[NDArray[np.float32], NDArray[Any]]


class _Passes:
    """What MindSpore calls for each epoch of one iterator: the k-th call starts pass k."""

    def __init__(self, batches: Callable[[int], Iterator[Batch]]) -> None:
        self._batches = batches
        self._next = 0

    def __call__(self) -> Iterator[Batch]:
        number, self._next = self._next, self._next + 1
        return self._batches(number)


class BatchedDataset(ds.GeneratorDataset):
    """Batches of the columns "image" and "label".

    MindSpore calls Python once a batch and not once an image, in a thread that runs ahead of the training.
    Every iterator starts at pass 0, whatever other iterators have read.

    Args:
        batches: makes the batches of pass k of an iterator.
        count: how many batches a pass has.
        batch_size: how many images a whole batch has.
    """

    def __init__(self, batches: Callable[[int], Iterator[Batch]], count: int, batch_size: int) -> None:
        super().__init__(batches, ["image", "label"], num_parallel_workers=1)
        self.source: Any = batches
        self.source_len = count
        self._images_a_batch = batch_size

    def prepare_multiprocessing(self) -> None:
        """Called by MindSpore whenever it builds a pipeline of this data set."""
        batches = self.source
        self.source = _Passes(batches)
        super().prepare_multiprocessing()
        self.source = batches

    def get_batch_size(self) -> int:
        """The number of images in a whole batch."""
        return self._images_a_batch
