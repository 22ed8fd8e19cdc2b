"""A data set for mindspore.train.Model that builds one pipeline per epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable


class EpochDataset:
    """Mimics a mindspore.dataset; each pass iterates the pipeline of the next epoch.

    The order and the augmentation of an epoch therefore depend on its number alone, not on the epochs that
    the process has run before. A resumed run gets the remaining batches of the interrupted epoch.

    Args:
        pipeline: returns the batches of an epoch, counted from 0, without the first `skip` batches.
        steps: batches in a whole epoch.
        batch_size: images in a batch.
        epoch: the first epoch, counted from 0.
        skip: batches of the first epoch that are already done.
    """

    def __init__(
        self,
        pipeline: Callable[[int, int], Any],
        steps: int,
        batch_size: int,
        epoch: int = 0,
        skip: int = 0,
    ) -> None:
        """Stores the arguments; pipelines are built on demand."""
        self._pipeline = pipeline
        self._steps = steps
        self._batch_size = batch_size
        self._epoch = epoch
        self._skip = skip

    def get_dataset_size(self) -> int:
        """The number of batches in a whole epoch."""
        return self._steps

    def get_batch_size(self) -> int:
        """The number of images in a batch."""
        return self._batch_size

    def reset(self) -> None:
        """Does nothing: iteration moves on to the next epoch by itself."""

    def create_tuple_iterator(self, **options: Any) -> Iterator[Any]:
        """Iterates over the epochs. StopIteration ends an epoch; the next call starts the next epoch.

        Args:
            **options: options of mindspore.dataset's method; `num_epochs` is ignored.

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
