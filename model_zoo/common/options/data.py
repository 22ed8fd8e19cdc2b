"""The data section of a recipe: which images, how they are batched and augmented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from model_zoo.common.schema import boolean, integer, one_of, setting


@dataclass(frozen=True)
class ColourImages:
    """32x32 RGB images with augmentation: "digits" (embedded) or "cifar10"."""

    name: str = setting(one_of(["digits", "cifar10"]))
    batch_size: int = setting(integer(1))
    evaluation_batch_size: int = setting(integer(1), 100)
    crop_padding: int = setting(integer(0), 4)
    flip: bool = setting(boolean, True)


@dataclass(frozen=True)
class PixelVectors:
    """Grey images as flat vectors: "mnist" (784 pixels in [0, 1]) or "mnist14" (196 normalised pixels)."""

    name: str = setting(one_of(["mnist", "mnist14"]))
    batch_size: int = setting(integer(1))
    evaluation_batch_size: int = setting(integer(1), 500)


DataOptions = Union[ColourImages, PixelVectors]
DATA = {"digits": ColourImages, "cifar10": ColourImages, "mnist": PixelVectors, "mnist14": PixelVectors}
