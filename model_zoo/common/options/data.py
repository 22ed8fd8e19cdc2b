"""The data section of a recipe: which images or text, and how it is batched and augmented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union

from model_zoo.common.errors import RecipeError
from model_zoo.common.schema import Value, boolean, integer, number, one_of, optional, setting


def _three_numbers(rule: Value) -> Value:
    def convert(value: Any) -> tuple[float, ...]:
        if not isinstance(value, (list, tuple)) or len(value) != 3:
            raise ValueError
        return tuple(rule.convert(item) for item in value)

    return Value(f"a list of three numbers, each {rule.accepts.replace('a number', '').strip()}", convert)


@dataclass(frozen=True)
class ColourImages:
    """32x32 RGB images in memory: "digits" (embedded), "cifar10" or "cifar100".

    Attributes:
        name: the data set.
        batch_size: images per training batch, over all processes.
        evaluation_batch_size: images per evaluation batch of a process.
        crop_padding: zeros around a training image, before a crop of the original size.
        flip: whether half of the training images are flipped horizontally.
    """

    name: str = setting(one_of(["digits", "cifar10", "cifar100"]))
    batch_size: int = setting(integer(1))
    evaluation_batch_size: int = setting(integer(1), 100)
    crop_padding: int = setting(integer(0), 4)
    flip: bool = setting(boolean, True)


@dataclass(frozen=True)
class PixelVectors:
    """Grey images as flat vectors: "mnist" (784 pixels in [0, 1]) or "mnist14" (196 normalised pixels).

    Attributes:
        name: the data set.
        batch_size: images per training batch, over all processes.
        evaluation_batch_size: images per evaluation batch of a process.
    """

    name: str = setting(one_of(["mnist", "mnist14"]))
    batch_size: int = setting(integer(1))
    evaluation_batch_size: int = setting(integer(1), 500)


@dataclass(frozen=True)
class EncodedImages:
    """Images that are decoded on the fly, such as ImageNet's.

    A training image is a crop of random area and aspect ratio, resized to a square. A test image is resized
    to `resize` pixels on its shorter side, and its center square is taken.

    Attributes:
        name: "image_folder" or "mindrecord".
        batch_size: images per training batch, over all processes.
        evaluation_batch_size: images per evaluation batch of a process.
        image_size: side of the network's input, in pixels.
        resize: shorter side of a resized test image, in pixels.
        least_area: smallest area of a training crop, as a fraction of its image; its aspect ratio is 3/4 to
            4/3.
        flip: whether half of the training images are flipped horizontally.
        mean: mean of the pixels per channel, in 0 to 255. Default: ImageNet's.
        deviation: standard deviation of the pixels per channel, in 0 to 255. Default: ImageNet's.
        workers: decoding threads of a process; null for one per processor.
    """

    name: str = setting(one_of(["image_folder", "mindrecord"]))
    batch_size: int = setting(integer(1))
    evaluation_batch_size: int = setting(integer(1), 100)
    image_size: int = setting(integer(1), 224)
    resize: int = setting(integer(1), 256)
    least_area: float = setting(number(above=0, most=1), 0.08)
    flip: bool = setting(boolean, True)
    mean: tuple[float, ...] = setting(_three_numbers(number(least=0)), (123.675, 116.28, 103.53))
    deviation: tuple[float, ...] = setting(_three_numbers(number(above=0)), (58.395, 57.12, 57.375))
    workers: int | None = setting(optional(integer(1)), None)

    def __post_init__(self) -> None:
        """Checks that the test crop fits into the resized image.

        Raises:
            RecipeError: `resize` is below `image_size`.
        """
        if self.resize < self.image_size:
            raise RecipeError(
                f"data.resize is {self.resize!r}; accepted: an integer of at least data.image_size, which is "
                f"{self.image_size}."
            )


@dataclass(frozen=True)
class ImageFolderOptions(EncodedImages):
    """Image files in the class folders train/<class>/ and val/<class>/ (or test/<class>/).

    Attributes:
        broken: "refuse" ends the run at an image that can't be decoded. "skip" counts it, trains on the next
            image of the folder instead, and leaves it out of the evaluation.
    """

    broken: str = setting(one_of(["refuse", "skip"]), "refuse")


@dataclass(frozen=True)
class MindRecordOptions(EncodedImages):
    """MindRecord files written by `ms-kfac-zoo convert`."""


@dataclass(frozen=True)
class TextWindows:
    """Windows of a text in bytes: "stdlib", the sources of Python's standard library.

    An epoch has a fixed number of training windows, at random places. The test split is read in windows that
    don't overlap.

    Attributes:
        name: the text.
        batch_size: windows per training batch, over all processes.
        window: bytes per window.
        epoch_windows: training windows per epoch.
        evaluation_batch_size: windows per evaluation batch of a process.
        evaluation_windows: windows of an evaluation, evenly spaced; null for the whole split.
    """

    name: str = setting(one_of(["stdlib"]))
    batch_size: int = setting(integer(1))
    window: int = setting(integer(1), 64)
    epoch_windows: int = setting(integer(1), 6400)
    evaluation_batch_size: int = setting(integer(1), 128)
    evaluation_windows: int | None = setting(optional(integer(1)), 2048)


DataOptions = Union[ColourImages, PixelVectors, ImageFolderOptions, MindRecordOptions, TextWindows]
DATA = {
    "digits": ColourImages,
    "cifar10": ColourImages,
    "cifar100": ColourImages,
    "mnist": PixelVectors,
    "mnist14": PixelVectors,
    "image_folder": ImageFolderOptions,
    "mindrecord": MindRecordOptions,
    "stdlib": TextWindows,
}
COLOUR_DATA = ("digits", "cifar10", "cifar100", "image_folder", "mindrecord")
