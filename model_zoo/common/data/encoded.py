"""Data sets of image files, decoded on the fly by threads.

Pillow decodes and resizes without holding the GIL, so threads run in parallel. The augmentation of an image
depends only on its own random key, not on the thread or the time at which it is decoded.
"""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_zoo.common.data.augmentation import normalise
from model_zoo.common.data.batched import Batch
from model_zoo.common.data.decoding import BrokenImageError, decode, evaluation_crop, training_crop
from model_zoo.common.errors import DataError
from model_zoo.common.options.data import EncodedImages

# Batches in progress in addition to the awaited one, which keep the threads busy during a hand-over.
_BATCHES_AHEAD = 2
# Images per task: submitting a task takes about a fifth of the time to decode a 32x32 JPEG.
_IMAGES_A_TASK = 8


@dataclass(frozen=True)
class EncodedImage:
    """An image of a split, not yet decoded.

    Attributes:
        name: its name in messages.
        label: its class.
        read: returns its bytes.
    """

    name: str
    label: int
    read: Callable[[], bytes]


class EncodedSplit(Protocol):
    """A split of encoded images, indexed from 0."""

    def __len__(self) -> int:
        """The number of images."""

    def images(self, numbers: Sequence[int]) -> Iterator[EncodedImage]:
        """The images with the given indices, in that order."""


class BrokenImages:
    """Collects the images that can't be decoded, or raises an error at the first one.

    Args:
        skip: whether to skip and count them; otherwise the first one ends the run.
    """

    def __init__(self, skip: bool) -> None:
        self._skip = skip
        self._found: dict[str, str] = {}
        self._lock = threading.Lock()

    def note(self, name: str, reason: BrokenImageError) -> None:
        """Records a broken image.

        Args:
            name: its name in messages.
            reason: the reason.

        Raises:
            DataError: broken images are not skipped.
        """
        if not self._skip:
            raise DataError(f"{name} {reason}.")
        with self._lock:
            self._found[name] = str(reason)

    def found(self) -> dict[str, str]:
        """The reason for each broken image so far, sorted by name."""
        with self._lock:
            return dict(sorted(self._found.items()))


@dataclass(frozen=True)
class EncodedDataSet:
    """A data set whose images are decoded on the fly.

    Attributes:
        title: its name in messages.
        train: the training split.
        test: the test split.
        class_names: the class names; the index of a name is its label.
        broken: handles images that can't be decoded.
    """

    title: str
    train: EncodedSplit
    test: EncodedSplit
    class_names: tuple[str, ...]
    broken: BrokenImages = field(default_factory=lambda: BrokenImages(skip=False))

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def training_images(self) -> int:
        """The number of training images."""
        return len(self.train)

    @property
    def test_images(self) -> int:
        """The number of test images."""
        return len(self.test)

    def describe(self) -> dict[str, Any]:
        """The data entry of run.json, including the broken images found so far."""
        return {
            "title": self.title,
            "training_images": self.training_images,
            "test_images": self.test_images,
            "classes": {name: label for label, name in enumerate(self.class_names)},
            "broken_images": self.broken.found(),
        }


@dataclass(frozen=True)
class _Rows:
    """A batch in progress: threads fill `images` and `labels`, and set `whole` for each decoded image."""

    images: NDArray[np.float32]
    labels: NDArray[np.int32]
    whole: NDArray[np.bool_]
    tasks: list[Future[None]]


class BatchDecoder:
    """Creates the batches of one split.

    Args:
        split: the images.
        options: the recipe's data section.
        broken: handles images that can't be decoded.
        keys: for training, the random key of each image for its augmentation; None for evaluation.
    """

    def __init__(
        self,
        split: EncodedSplit,
        options: EncodedImages,
        broken: BrokenImages,
        keys: NDArray[np.uint64] | None = None,
    ) -> None:
        self._split = split
        self._options = options
        self._broken = broken
        self._keys = keys

    def batches(self, plan: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Decodes the images of the given batches.

        Args:
            plan: the image indices of each batch.

        Yields:
            Normalized images of shape (N, 3, size, size) and their labels. A skipped image is replaced in
            training and left out in evaluation.

        Raises:
            DataError: an image is broken and not skipped, or all images are broken.
        """
        workers = self._options.workers or len(os.sched_getaffinity(0))
        threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        some = False
        try:
            for rows in self._in_order(threads, plan):
                for task in rows.tasks:
                    task.result()
                if rows.whole.all():
                    yield rows.images, rows.labels
                elif rows.whole.any():
                    yield rows.images[rows.whole], rows.labels[rows.whole]
                some = some or bool(rows.whole.any())
        finally:
            threads.shutdown(cancel_futures=True)
        if not some:
            raise DataError("none of the images to evaluate can be decoded.")

    def _in_order(self, threads: ThreadPoolExecutor, plan: Sequence[NDArray[np.int64]]) -> Iterator[_Rows]:
        images = self._split.images([int(number) for numbers in plan for number in numbers])
        ahead: deque[_Rows] = deque()
        for numbers in plan:
            ahead.append(self._start(threads, numbers, images))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.popleft()
        yield from ahead

    def _start(
        self, threads: ThreadPoolExecutor, numbers: NDArray[np.int64], images: Iterator[EncodedImage]
    ) -> _Rows:
        count, size = len(numbers), self._options.image_size
        rows = _Rows(
            np.empty((count, 3, size, size), np.float32), np.empty(count, np.int32), np.zeros(count, bool), []
        )
        for start in range(0, count, _IMAGES_A_TASK):
            chunk = [
                (row, int(numbers[row]), next(images))
                for row in range(start, min(start + _IMAGES_A_TASK, count))
            ]
            rows.tasks.append(threads.submit(self._fill, rows, chunk))
        return rows

    def _fill(self, rows: _Rows, chunk: list[tuple[int, int, EncodedImage]]) -> None:
        options = self._options
        for row, number, encoded in chunk:
            found = self._decode(number, encoded)
            if found is None:
                continue
            image, rows.labels[row] = found
            pixels = np.asarray(self._view(number, image))[None]
            rows.images[row] = normalise(pixels, options.mean, options.deviation)[0]
            rows.whole[row] = True

    def _decode(self, number: int, encoded: EncodedImage) -> tuple[Image.Image, int] | None:
        try:
            return decode(encoded.read()), encoded.label
        except BrokenImageError as error:
            self._broken.note(encoded.name, error)
        if self._keys is None:
            return None
        # Takes the next intact image: the same one in every epoch and after a resume.
        count = len(self._split)
        for step in range(1, count):
            (other,) = self._split.images([(number + step) % count])
            try:
                return decode(other.read()), other.label
            except BrokenImageError as error:
                self._broken.note(other.name, error)
        raise DataError(f"{encoded.name} can't be replaced: no image of the split can be decoded.")

    def _view(self, number: int, image: Image.Image) -> Image.Image:
        options = self._options
        if self._keys is None:
            return evaluation_crop(image, options.image_size, options.resize)
        # Python guarantees that a seeded random() returns the same numbers in all versions.
        generator = random.Random(int(self._keys[number]))
        return training_crop(image, options.image_size, options.least_area, options.flip, generator)
