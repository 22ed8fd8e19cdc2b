"""A mindspore.dataset whose rows are whole batches made by NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import mindspore.dataset as ds
import numpy as np
from numpy.typing import NDArray

from model_zoo.common.errors import UsageError

# MindSpore's 16 are meant for rows of one image: of 128 images of ImageNet's size they would take 1.2 GB.
_BATCHES_AHEAD = 4

Batch = tuple[NDArray[np.float32], NDArray[Any]]


class _Source:
    """What MindSpore calls for a pass, which remembers the error of the user's that has ended one."""

    def __init__(self, batches: Callable[[], Iterator[Batch]]) -> None:
        self.failure: UsageError | None = None
        self._batches = batches

    def __call__(self) -> Iterator[Batch]:
        try:
            yield from self._batches()
        except UsageError as error:
            self.failure = error
            raise


class _NamedErrors:
    """An iterator of MindSpore's that raises the user's error instead of the RuntimeError it has become."""

    def __init__(self, iterator: Any, source: _Source) -> None:
        self._iterator = iterator
        self._source = source

    def __iter__(self) -> _NamedErrors:
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
def _few_batches_ahead() -> Iterator[None]:
    before = ds.config.get_prefetch_size()
    ds.config.set_prefetch_size(_BATCHES_AHEAD)
    try:
        yield
    finally:
        ds.config.set_prefetch_size(before)


class BatchedDataset(ds.GeneratorDataset):
    """Batches of the columns "image" and "label".

    MindSpore calls Python once a batch and not once an image, in a thread that runs ahead of the training.
    An error that is the user's to mend reaches whoever iterates as the UsageError that it is.

    Args:
        batches: makes the batches of a pass.
        count: how many batches a pass has; it may turn out shorter.
        batch_size: how many images a whole batch has.
    """

    def __init__(self, batches: Callable[[], Iterator[Batch]], count: int, batch_size: int) -> None:
        super().__init__(_Source(batches), ["image", "label"], num_parallel_workers=1)
        self.dataset_size = count
        self._images_a_batch = batch_size

    def create_tuple_iterator(self, *arguments: Any, **options: Any) -> Any:
        """As that of mindspore.dataset, but for the errors."""
        with _few_batches_ahead():
            return _NamedErrors(super().create_tuple_iterator(*arguments, **options), self.source)

    def create_dict_iterator(self, *arguments: Any, **options: Any) -> Any:
        """As that of mindspore.dataset, but for the errors."""
        with _few_batches_ahead():
            return _NamedErrors(super().create_dict_iterator(*arguments, **options), self.source)

    def get_batch_size(self) -> int:
        """The number of images in a whole batch."""
        return self._images_a_batch
