"""A mindspore.dataset whose rows are whole NumPy batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import mindspore.dataset as ds
from numpy.typing import NDArray

from model_zoo.common.errors import UsageError

# MindSpore's default of 16 is for rows of one image; 16 batches of 128 ImageNet images take 1.2 GB.
_BATCHES_AHEAD = 4

Batch = tuple[NDArray[Any], NDArray[Any]]


class _Source:
    """The callable of the GeneratorDataset; keeps the UsageError that ended a pass."""

    def __init__(self, batches: Callable[[], Iterator[Batch]]) -> None:
        self.failure: UsageError | None = None
        self._batches = batches

    def __call__(self) -> Iterator[Batch]:
        try:
            yield from self._batches()
        except UsageError as error:
            self.failure = error
            raise


class _UsageErrorIterator:
    """Wraps MindSpore's iterator to raise the original UsageError, not MindSpore's RuntimeError."""

    def __init__(self, iterator: Any, source: _Source) -> None:
        self._iterator = iterator
        self._source = source

    def __iter__(self) -> _UsageErrorIterator:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except RuntimeError:
            if self._source.failure is None:
                raise
            raise self._source.failure from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)


@contextmanager
def _short_prefetch() -> Iterator[None]:
    before = ds.config.get_prefetch_size()
    ds.config.set_prefetch_size(_BATCHES_AHEAD)
    try:
        yield
    finally:
        ds.config.set_prefetch_size(before)


class BatchedDataset(ds.GeneratorDataset):
    """Batches of the columns "image" and "label"; for a text, ids and the ids one byte later.

    MindSpore calls Python once per batch, not once per image, in a thread that runs ahead of the training.
    A UsageError in that thread is re-raised as such to the caller that iterates.

    Args:
        batches: creates the batches of a pass.
        count: the number of batches in a pass; the actual number may be smaller.
        batch_size: the number of images in a whole batch.
    """

    def __init__(self, batches: Callable[[], Iterator[Batch]], count: int, batch_size: int) -> None:
        super().__init__(_Source(batches), ["image", "label"], num_parallel_workers=1)
        self.dataset_size = count
        self._images_a_batch = batch_size

    def create_tuple_iterator(self, *arguments: Any, **options: Any) -> Any:
        """Like the method of mindspore.dataset, but raises UsageError unchanged."""
        with _short_prefetch():
            return _UsageErrorIterator(super().create_tuple_iterator(*arguments, **options), self.source)

    def create_dict_iterator(self, *arguments: Any, **options: Any) -> Any:
        """Like the method of mindspore.dataset, but raises UsageError unchanged."""
        with _short_prefetch():
            return _UsageErrorIterator(super().create_dict_iterator(*arguments, **options), self.source)

    def get_batch_size(self) -> int:
        """The number of images in a whole batch."""
        return self._images_a_batch
