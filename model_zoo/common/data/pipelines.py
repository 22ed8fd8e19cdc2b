"""The batches of a recipe's data set as mindspore.dataset pipelines.

Order and augmentation of an epoch depend on (seed, epoch) alone: see sampler.py. MindSpore's random operators
do not allow that, because their streams continue from image to image. A pipeline that starts at batch b would
have to process all earlier images, and each process and worker would draw different numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable, Union

import numpy as np
from numpy.typing import NDArray

from model_zoo.common.data import (
    augmentation,
    cifar10,
    cifar100,
    class_folders,
    digits,
    mnist,
    records,
    standard_library,
)
from model_zoo.common.data.batched import Batch, BatchedDataset
from model_zoo.common.data.encoded import BatchDecoder, BrokenImages, EncodedDataSet
from model_zoo.common.data.sampler import (
    augmentation_draws,
    augmentation_keys,
    epoch_permutation,
    evaluation_batch_indices,
    training_batch_indices,
    window_starts,
)
from model_zoo.common.data.shards import Shard, check_batch_divides
from model_zoo.common.data.splits import DataSet, Split
from model_zoo.common.data.text import TextDataSet
from model_zoo.common.errors import DataError
from model_zoo.common.options.data import (
    ColourImages,
    DataOptions,
    EncodedImages,
    ImageFolderOptions,
    MindRecordOptions,
    PixelVectors,
    TextWindows,
)

AnyDataSet = Union[DataSet, EncodedDataSet, TextDataSet]

# Creates a batch from image indices and, for augmentation, the random numbers of all images.
MakeBatch = Callable[[NDArray[np.int64], "NDArray[np.float64] | None"], Batch]

DRAWS = 3


def load_data(options: DataOptions, data_dir: Path | None) -> AnyDataSet:
    """Reads the data set of a recipe into memory, or lists its images if they are decoded on the fly.

    Args:
        options: the recipe's data section.
        data_dir: the folder of the data; not needed for the digits and stdlib.

    Returns:
        The data set.
    """
    if isinstance(options, TextWindows):
        return standard_library.load(options, data_dir)
    if isinstance(options, ImageFolderOptions):
        train, test, classes = class_folders.read_folders(data_dir)
        broken = BrokenImages(skip=options.broken == "skip")
        return EncodedDataSet(f"images of {train.folder.parent.name}", train, test, classes, broken)
    if isinstance(options, MindRecordOptions):
        return records.load(data_dir)
    if options.name == "digits":
        return digits.load()
    if options.name == "cifar10":
        return cifar10.load(data_dir)
    if options.name == "cifar100":
        return cifar100.load(data_dir)
    return mnist.load(data_dir, side=14 if options.name == "mnist14" else 28)


def _colour_images(data: DataSet, split: Split, options: ColourImages) -> MakeBatch:
    def make(numbers: NDArray[np.int64], draws: NDArray[np.float64] | None) -> Batch:
        images = split.images[numbers]
        if draws is not None and options.crop_padding:
            images = augmentation.random_crop(
                images, options.crop_padding, draws[numbers, 0], draws[numbers, 1]
            )
        normalised = augmentation.normalise(images, data.mean, data.deviation)
        if draws is not None and options.flip:
            augmentation.flip(normalised, draws[numbers, 2])
        return normalised, split.labels[numbers]

    return make


def _pixel_vectors(data: DataSet, split: Split, options: PixelVectors) -> MakeBatch:
    flat = split.images.reshape(len(split.images), -1)

    def intensities(numbers: NDArray[np.int64], draws: object) -> Batch:
        # The auto-encoder's target is its input, as intensities in [0, 1].
        images = flat[numbers] / np.float32(255)
        return images, images

    def normalised(numbers: NDArray[np.int64], draws: object) -> Batch:
        images = (flat[numbers] - np.float32(data.mean[0])) / np.float32(data.deviation[0])
        return images, split.labels[numbers]

    return intensities if options.name == "mnist" else normalised


def _batches(
    data: AnyDataSet,
    split: str,
    options: DataOptions,
    plan: Iterable[NDArray[np.int64]],
    random: tuple[int, int] | None,
) -> Iterator[Batch]:
    """The batches of a plan, augmented with (seed, epoch) if given."""
    if isinstance(data, EncodedDataSet):
        images = data.train if split == "train" else data.test
        keys = None if random is None else augmentation_keys(len(images), *random)
        assert isinstance(options, EncodedImages)
        return BatchDecoder(images, options, data.broken, keys).batches(list(plan))
    if isinstance(data, TextDataSet):
        return data.batches(split, plan)
    arrays = data.train if split == "train" else data.test
    if isinstance(options, ColourImages):
        make = _colour_images(data, arrays, options)
        draws = None if random is None else augmentation_draws(len(arrays.labels), DRAWS, *random)
        return (make(numbers, draws) for numbers in plan)
    assert isinstance(options, PixelVectors)
    make = _pixel_vectors(data, arrays, options)
    return (make(numbers, None) for numbers in plan)


def check_batch_size(data: AnyDataSet, options: DataOptions, shard: Shard) -> None:
    """Checks that an epoch has a batch and that it divides equally among the processes.

    Args:
        data: the data set.
        options: the recipe's data section.
        shard: the process.

    Raises:
        DataError: one of these conditions is violated.
    """
    count, what = _training_samples(data)
    if count < options.batch_size:
        raise DataError(
            f"{data.title} has {count:,} {what}, fewer than one batch (data.batch_size {options.batch_size})."
        )
    check_batch_divides(options.batch_size, shard.size)


def _training_samples(data: AnyDataSet) -> tuple[int, str]:
    if isinstance(data, TextDataSet):
        return data.options.epoch_windows, "windows per epoch (data.epoch_windows)"
    return data.training_images, "training images"


def training_batches(
    data: AnyDataSet,
    options: DataOptions,
    *,
    seed: int,
    epoch: int,
    shard: Shard = Shard(),  # noqa: B008
    skip: int = 0,
) -> Any:
    """The shuffled, augmented training batches of one process, without an incomplete last batch.

    The position of an image in an epoch and its augmentation depend on (seed, epoch) alone: not on earlier
    epochs, `skip` or the number of processes. The same holds for the windows of a text.

    Args:
        data: the data set.
        options: the recipe's data section; `batch_size` is over all processes.
        seed: the run's seed.
        epoch: the epoch, from 0.
        shard: the process.
        skip: how many batches to skip at the start of the epoch.

    Returns:
        A mindspore.dataset of the columns "image" and "label".

    Raises:
        ValueError: no batch of the epoch remains.
    """
    check_batch_size(data, options, shard)
    count, _ = _training_samples(data)
    batches = count // options.batch_size
    if not 0 <= skip < batches:
        raise ValueError(f"skip: must be an integer from 0 to {batches - 1}, got {skip!r}")

    def one_epoch() -> Iterator[Batch]:
        if isinstance(data, TextDataSet):
            order = window_starts(count, data.places("train"), seed, epoch)
        else:
            order = epoch_permutation(count, seed, epoch)
        plan = training_batch_indices(order, options.batch_size, shard, skip)
        return _batches(data, "train", options, plan, (seed, epoch))

    return BatchedDataset(one_epoch, batches - skip, options.batch_size // shard.size)


def evaluation_batches(
    data: AnyDataSet,
    split: str,
    options: DataOptions,
    *,
    shard: Shard = Shard(),  # noqa: B008
) -> Any:
    """All images of a split once, in order, normalized and not augmented; for a text, its windows.

    Args:
        data: the data set.
        split: "train" or "test".
        options: the recipe's data section; `evaluation_batch_size` is per process.
        shard: the process, which takes every shard.size-th image.

    Returns:
        A mindspore.dataset of the columns "image" and "label".

    Raises:
        DataError: there are fewer images than processes.
    """
    if isinstance(data, TextDataSet):
        samples, what = data.evaluation_starts(split), "windows"
    else:
        count = data.training_images if split == "train" else data.test_images
        samples, what = np.arange(count), "images"
    if len(samples) < shard.size:
        raise DataError(
            f"{data.title} has {len(samples):,} {what} to evaluate, fewer than {shard.size} processes."
        )
    indices = evaluation_batch_indices(len(samples), options.evaluation_batch_size, shard)
    plan = [samples[numbers] for numbers in indices]

    def one_pass() -> Iterator[Batch]:
        return _batches(data, split, options, plan, None)

    return BatchedDataset(one_pass, len(plan), options.evaluation_batch_size)
