"""Training images that are held out, so that tuning does not see the test images."""

from __future__ import annotations

from dataclasses import replace

from model_zoo.common.data.splits import DataSet, Split


def _part(split: Split, images: slice) -> Split:
    return Split(split.images[images], split.labels[images])


def hold_out(data: object, count: int) -> DataSet:
    """Replaces the test split by the last training images, which leave the training split.

    Args:
        data: the data set, with its images in memory.
        count: how many images.

    Returns:
        The data set of a trial.

    Raises:
        TypeError: the images are not in memory.
        ValueError: no training image would remain.
    """
    if not isinstance(data, DataSet):
        raise TypeError(f"images are held out of a data set in memory, got {type(data).__name__}")
    if count >= data.training_images:
        raise ValueError(
            f"images to hold out: must be fewer than the {data.training_images} training images of "
            f"{data.title}, got {count}"
        )
    return replace(data, train=_part(data.train, slice(-count)), test=_part(data.train, slice(-count, None)))


def first_images(data: DataSet, count: int) -> DataSet:
    """The same data set with the first training images only, to evaluate on."""
    return replace(data, train=_part(data.train, slice(count)))
