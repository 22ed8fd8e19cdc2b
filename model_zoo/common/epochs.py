"""A data set for mindspore.train.Model whose every epoch is a pipeline of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable


class Epochs:
    """Stands for a mindspore.dataset: each pass over it is the next epoch's pipeline.

    So the order and the augmentation of an epoch follow from its number alone, whichever epochs a process
    went through before it, and a resumed run meets the batches that are left of the epoch it stopped in.

    Args:
        pipeline: gives the batches of an epoch, counted from 0, without some at its start.
        steps: batches of a whole epoch.
        batch_size: images in a batch.
        epoch: the first epoch, counted from 0.
        skip: batches of the first epoch that are done.
    """

    def __init__(
        self,
        pipeline: Callable[[int, int], Any],
        steps: int,
        batch_size: int,
        epoch: int = 0,
        skip: int = 0,
    ) -> None:
        """Builds no pipeline yet."""
        self._pipeline = pipeline
        self._steps = steps
        self._batch_size = batch_size
        self._epoch = epoch
        self._skip = skip

    def get_dataset_size(self) -> int:
        """Batches of a whole epoch."""
        return self._steps

    def get_batch_size(self) -> int:
        """Images in a batch."""
        return self._batch_size

    def reset(self) -> None:
        """Nothing: the end of an epoch's pipeline leads to the next one's."""

    def create_tuple_iterator(self, **options: Any) -> Iterator[Any]:
        """Goes through the epochs; StopIteration ends one of them, and the next call begins the next.

        Args:
            **options: of mindspore.dataset's method; `num_epochs` says nothing here.

        Returns:
            The iterator.
        """
        return _EpochIterator(self._pipeline, self._epoch, self._skip, {**options, "num_epochs": 1})


class _EpochIterator(Iterator[Any]):
    def __init__(self, pipeline: Callable[[int, int], Any], epoch: int, skip: int, options: Any) -> None:
        self._pipeline = pipeline
        self._epoch = epoch
        self._skip = skip
        self._options = options
        self._batches: Any = None

    def __next__(self) -> Any:
        if self._batches is None:
            batches = self._pipeline(self._epoch, self._skip)
            self._batches = batches.create_tuple_iterator(**self._options)
        try:
            return next(self._batches)
        except StopIteration:
            self._batches = None
            self._epoch, self._skip = self._epoch + 1, 0
            raise
