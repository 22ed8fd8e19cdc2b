"""Batches and augmentation through mindspore.dataset.

Images travel as bytes until the last operators of the pipeline, which run in C++: no Python code touches a
single image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore.dataset as ds
from mindspore.dataset import vision

from model_zoo.common.data import cifar10, digits, mnist
from model_zoo.common.data.splits import DataSet, Split
from model_zoo.common.options.data import ColourImages, DataOptions, PixelVectors


def load_data(options: DataOptions, data_dir: Path | None) -> DataSet:
    """Reads the data set of a recipe into memory.

    Args:
        options: the recipe's data section.
        data_dir: the folder of CIFAR-10 or MNIST; the digits need none.

    Returns:
        The data set.
    """
    if options.name == "digits":
        return digits.load()
    if options.name == "cifar10":
        return cifar10.load(data_dir)
    return mnist.load(data_dir, side=14 if options.name == "mnist14" else 28)


def _in_memory(columns: tuple[Any, ...], names: list[str], shuffle: bool) -> Any:
    # One worker: with more, which worker's random stream an image meets would depend on timing.
    return ds.NumpySlicesDataset(columns, names, shuffle=shuffle, num_parallel_workers=1)


def _colour_images(data: DataSet, split: Split, options: ColourImages, train: bool) -> Any:
    rows = _in_memory((split.images, split.labels), ["image", "label"], shuffle=train)
    operators: list[Any] = []
    if train and options.crop_padding:
        operators.append(vision.RandomCrop(split.images.shape[1:3], padding=options.crop_padding))
    if train and options.flip:
        operators.append(vision.RandomHorizontalFlip())
    operators += [vision.Normalize(data.mean, data.deviation), vision.HWC2CHW()]
    return rows.map(operators, "image", num_parallel_workers=1)


def _pixel_vectors(data: DataSet, split: Split, options: PixelVectors, train: bool) -> Any:
    flat = split.images.reshape(len(split.images), -1)
    if options.name == "mnist":
        # The auto-encoder's target is its input, as intensities in [0, 1].
        rows = _in_memory((flat, flat), ["image", "label"], shuffle=train)
        return rows.map(vision.Rescale(1 / 255, 0.0), "image").map(vision.Rescale(1 / 255, 0.0), "label")
    scale = 1 / data.deviation[0]
    rows = _in_memory((flat, split.labels), ["image", "label"], shuffle=train)
    return rows.map(vision.Rescale(scale, -data.mean[0] * scale), "image")


def training_batches(data: DataSet, options: DataOptions) -> Any:
    """Shuffled, augmented training batches; the incomplete last batch of an epoch is left out.

    Args:
        data: the data set.
        options: the recipe's data section.

    Returns:
        A mindspore.dataset of the columns "image" and "label".
    """
    return _batches(data, data.train, options, train=True)


def evaluation_batches(data: DataSet, split: str, options: DataOptions) -> Any:
    """All images of a split once, in order, normalised and not augmented.

    Args:
        data: the data set.
        split: "train" or "test".
        options: the recipe's data section.

    Returns:
        A mindspore.dataset of the columns "image" and "label".
    """
    return _batches(data, data.train if split == "train" else data.test, options, train=False)


def _batches(data: DataSet, split: Split, options: DataOptions, train: bool) -> Any:
    if isinstance(options, ColourImages):
        rows = _colour_images(data, split, options, train)
    else:
        rows = _pixel_vectors(data, split, options, train)
    size = options.batch_size if train else options.evaluation_batch_size
    return rows.batch(size, drop_remainder=train, num_parallel_workers=1)


def seed_pipelines(seed: int) -> None:
    """Fixes the order of the images and their augmentation; call it before the pipelines are built."""
    ds.config.set_seed(seed)
