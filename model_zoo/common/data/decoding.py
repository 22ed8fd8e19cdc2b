"""Decodes an image and crops it for training or evaluation."""

from __future__ import annotations

import io
import math
import random

import numpy as np
from PIL import Image, UnidentifiedImageError

# The format is detected from the content: some of ImageNet's .JPEG files are PNG.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")

# Aspect ratios (width / height) of a training crop, and the number of attempts: Szegedy et al., "Going deeper
# with convolutions", 2015, section 6, as in PyTorch and MindSpore.
_SHAPES = (3 / 4, 4 / 3)
_ATTEMPTS = 10

Box = tuple[float, float, float, float]


class BrokenImageError(Exception):
    """The bytes can't be decoded to an image; the text gives the reason."""


def decode(content: bytes) -> Image.Image:
    """Decodes an image to the colours that it stores, as `Image.convert("RGB")` and so torchvision do.

    Alpha and transparent colours are dropped, without a background. CMYK is converted without a profile. An
    EXIF orientation is ignored. An animation gives its first frame. Unlike in Pillow, 16-bit grey keeps its
    high byte, as 16-bit colours do; Pillow clips it at 255, which makes nearly every pixel white.

    Args:
        content: the bytes of an image file.

    Returns:
        The image in RGB.

    Raises:
        BrokenImageError: the bytes are truncated, damaged or in another format.
        MemoryError: the image does not fit into memory.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            # Pillow would warn that it is dropped, or search the palette for a colour that stands for it.
            image.info.pop("transparency", None)
            # I;16, or I in older versions of Pillow.
            return (_high_byte(image) if image.mode.startswith("I") else image).convert("RGB")
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise BrokenImageError(f"is not one of {', '.join(FORMATS)}") from None
    # Pillow's parsers raise many types of errors on damaged files.
    except Exception as error:
        raise BrokenImageError(f"can't be decoded: {str(error).rstrip('.')}") from error


def _high_byte(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def random_crop_box(width: int, height: int, least_area: float, generator: random.Random) -> Box:
    """Draws a crop of random area and aspect ratio.

    Args:
        width: the width of the image.
        height: the height of the image.
        least_area: smallest area of the crop, as a fraction of the image's.
        generator: the random number generator.

    Returns:
        Left, top, right and bottom in whole pixels. If no attempt fits, the largest centered crop with an
        accepted aspect ratio.
    """
    for _ in range(_ATTEMPTS):
        area = width * height * (least_area + (1 - least_area) * generator.random())
        low, high = map(math.log, _SHAPES)
        shape = math.exp(low + (high - low) * generator.random())
        across, down = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < across <= width and 0 < down <= height:
            left = int(generator.random() * (width - across + 1))
            top = int(generator.random() * (height - down + 1))
            return left, top, left + across, top + down
    shape = min(max(width / height, _SHAPES[0]), _SHAPES[1])
    across, down = min(width, round(height * shape)), min(height, round(width / shape))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def center_crop_box(width: int, height: int, share: float) -> Box:
    """The center square whose side is a fraction of the shorter side.

    Args:
        width: the width of the image.
        height: the height of the image.
        share: the fraction, at most 1.

    Returns:
        Left, top, right and bottom, in fractional pixels.
    """
    side = min(width, height) * share
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def training_crop(
    image: Image.Image, size: int, least_area: float, flip: bool, generator: random.Random
) -> Image.Image:
    """A random crop, resized to a square and flipped with probability one half.

    Args:
        image: the image.
        size: side of the result, in pixels.
        least_area: smallest area of the crop, as a fraction of the image's.
        flip: whether the crop may be flipped.
        generator: the random number generator.

    Returns:
        The square.
    """
    mirrored = generator.random() < 0.5
    box = random_crop_box(image.width, image.height, least_area, generator)
    view = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip and mirrored else view


def evaluation_crop(image: Image.Image, size: int, resize: int) -> Image.Image:
    """The center square of the image after resizing its shorter side to `resize`.

    Only the square itself is resized, which gives the same result with less work.

    Args:
        image: the image.
        size: side of the result, in pixels.
        resize: the shorter side, at least `size`.

    Returns:
        The square.
    """
    box = center_crop_box(image.width, image.height, size / resize)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
