"""The batches of a recipe's data set as mindspore.dataset pipelines.

Order and augmentation of an epoch are functions of (seed, epoch): see order.py. MindSpore's own random
operators would not do, because their streams run on from image to image: a pipeline that starts at batch b
would have to work through all images before it, and each process and each worker would draw other numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable, Union

import numpy as np
from numpy.typing import NDArray

from model_zoo.common.data import augmentation, cifar10, cifar100, class_folders, digits, mnist, records
from model_zoo.common.data.batched import Batch, BatchedDataset
from model_zoo.common.data.encoded import BatchDecoder, BrokenImages, EncodedDataSet
from model_zoo.common.data.order import (
    epoch_draws,
    epoch_keys,
    epoch_order,
    evaluation_plan,
    training_plan,
)
from model_zoo.common.data.shards import Shard
from model_zoo.common.data.splits import DataSet, Split
from model_zoo.common.errors import DataError
from model_zoo.common.options.data import (
    ColourImages,
    DataOptions,
    EncodedImages,
    ImageFolderOptions,
    MindRecordOptions,
    PixelVectors,
)

AnyDataSet = Union[DataSet, EncodedDataSet]

# Given image numbers and, when they are augmented, the draws of all images, makes a batch.
MakeBatch = Callable[[NDArray[np.int64], "NDArray[np.float64] | None"], Batch]

DRAWS = 3


def load_data(options: DataOptions, data_dir: Path | None) -> AnyDataSet:
    """Reads the data set of a recipe into memory, or lists its images when those are decoded as needed.

    Args:
        options: the recipe's data section.
        data_dir: the folder of the data; the digits need none.

    Returns:
        The data set.
    """
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
            images = augmentation.crop_shifted(
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
    """The batches of a plan, augmented by (seed, epoch) where that is given."""
    if isinstance(data, EncodedDataSet):
        images = data.train if split == "train" else data.test
        keys = None if random is None else epoch_keys(len(images), *random)
        assert isinstance(options, EncodedImages)
        return BatchDecoder(images, options, data.broken, keys).batches(list(plan))
    arrays = data.train if split == "train" else data.test
    if isinstance(options, ColourImages):
        make = _colour_images(data, arrays, options)
        draws = None if random is None else epoch_draws(len(arrays.labels), DRAWS, *random)
        return (make(numbers, draws) for numbers in plan)
    assert isinstance(options, PixelVectors)
    make = _pixel_vectors(data, arrays, options)
    return (make(numbers, None) for numbers in plan)


def check_batch_size(data: AnyDataSet, options: DataOptions, shard: Shard) -> None:
    """Makes sure that an epoch has a batch and that the processes can share it equally.

    Args:
        data: the data set.
        options: the recipe's data section.
        shard: the process.

    Raises:
        DataError: one of both doesn't hold.
    """
    if data.training_images < options.batch_size:
        raise DataError(
            f"{data.title} has {data.training_images:,} training images, fewer than one batch "
            f"(data.batch_size {options.batch_size})."
        )
    if options.batch_size % shard.size:
        raise DataError(
            f"data.batch_size {options.batch_size} can't be shared equally by {shard.size} processes."
        )


def training_batches(
    data: AnyDataSet,
    options: DataOptions,
    *,
    seed: int,
    epoch: int,
    shard: Shard = Shard(),  # noqa: B008
    skip: int = 0,
) -> Any:
    """Shuffled, augmented training batches of one process; an incomplete last batch of an epoch is left out.

    An image's place in an epoch and its augmentation follow from (seed, epoch): neither earlier epochs nor
    `skip` nor the number of processes change them.

    Args:
        data: the data set.
        options: the recipe's data section; `batch_size` counts the images of all processes.
        seed: the run's seed.
        epoch: the epoch, from 0.
        shard: the process.
        skip: how many batches of the epoch are left out at its start.

    Returns:
        A mindspore.dataset of the columns "image" and "label".

    Raises:
        ValueError: no batch is left of the epoch.
    """
    check_batch_size(data, options, shard)
    count = data.training_images
    batches = count // options.batch_size
    if not 0 <= skip < batches:
        raise ValueError(f"skip is {skip!r}; accepted: a whole number from 0 to {batches - 1}")

    def one_epoch() -> Iterator[Batch]:
        plan = training_plan(epoch_order(count, seed, epoch), options.batch_size, shard, skip)
        return _batches(data, "train", options, plan, (seed, epoch))

    return BatchedDataset(one_epoch, batches - skip, options.batch_size // shard.size)


def evaluation_batches(
    data: AnyDataSet,
    split: str,
    options: DataOptions,
    *,
    shard: Shard = Shard(),  # noqa: B008
) -> Any:
    """All images of a split once, in order, normalised and not augmented.

    Args:
        data: the data set.
        split: "train" or "test".
        options: the recipe's data section; every process takes `evaluation_batch_size` images at a time.
        shard: the process, which takes every shard.size-th image.

    Returns:
        A mindspore.dataset of the columns "image" and "label".

    Raises:
        DataError: there are fewer images than processes.
    """
    count = data.training_images if split == "train" else data.test_images
    if count < shard.size:
        raise DataError(f"{data.title} has {count:,} images to evaluate, fewer than {shard.size} processes.")
    plan = evaluation_plan(count, options.evaluation_batch_size, shard)

    def one_pass() -> Iterator[Batch]:
        return _batches(data, split, options, plan, None)

    return BatchedDataset(one_pass, len(plan), options.evaluation_batch_size)
