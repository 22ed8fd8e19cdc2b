"""The data section of a recipe: which images, how they are batched and augmented."""

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
        name: which of them.
        batch_size: images a training step takes, of all processes together.
        evaluation_batch_size: images a process evaluates at a time.
        crop_padding: zeros around a training image, out of which a window of the old size is cut.
        flip: whether half of the training images are mirrored.
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
        name: which of them.
        batch_size: images a training step takes, of all processes together.
        evaluation_batch_size: images a process evaluates at a time.
    """

    name: str = setting(one_of(["mnist", "mnist14"]))
    batch_size: int = setting(integer(1))
    evaluation_batch_size: int = setting(integer(1), 500)


@dataclass(frozen=True)
class EncodedImages:
    """Images that are decoded as they are needed, as those of ImageNet.

    A training image is a window of random area and shape, scaled to a square; a test image is scaled so that
    its shorter side is `resize`, and the square in its middle is taken.

    Attributes:
        name: "image_folder" or "mindrecord".
        batch_size: images a training step takes, of all processes together.
        evaluation_batch_size: images a process evaluates at a time.
        image_size: pixels on a side of what the network sees.
        resize: pixels on the shorter side of a scaled test image.
        least_area: of a training window, as a share of its image; its width is 3/4 to 4/3 of its height.
        flip: whether half of the training images are mirrored.
        mean: of the pixels, a channel each, in bytes; ImageNet's unless given.
        deviation: standard deviation of the pixels, a channel each, in bytes; ImageNet's unless given.
        workers: threads of a process that decode; null for one a processor.
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
        """Refuses a square that is larger than the scaled image it is cut out of.

        Raises:
            RecipeError: `resize` is below `image_size`.
        """
        if self.resize < self.image_size:
            raise RecipeError(
                f"data.resize is {self.resize!r}; accepted: at least data.image_size, "
                f"a whole number of at least {self.image_size}."
            )


@dataclass(frozen=True)
class ImageFolderOptions(EncodedImages):
    """Image files in the folders train/<class>/ and val/<class>/ (or test/<class>/).

    Attributes:
        broken: "refuse" ends the run at an image that can't be decoded; "skip" counts it, takes the next
            image of the folder in its place for training, and leaves it out of the evaluation.
    """

    broken: str = setting(one_of(["refuse", "skip"]), "refuse")


@dataclass(frozen=True)
class MindRecordOptions(EncodedImages):
    """MindRecord files that `python -m model_zoo.convert` has written."""


DataOptions = Union[ColourImages, PixelVectors, ImageFolderOptions, MindRecordOptions]
DATA = {
    "digits": ColourImages,
    "cifar10": ColourImages,
    "cifar100": ColourImages,
    "mnist": PixelVectors,
    "mnist14": PixelVectors,
    "image_folder": ImageFolderOptions,
    "mindrecord": MindRecordOptions,
}
COLOUR_DATA = ("digits", "cifar10", "cifar100", "image_folder", "mindrecord")
