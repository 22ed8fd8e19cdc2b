"""Decodes one image and cuts out of it what a network sees."""

from __future__ import annotations

import io
import math
import random

from PIL import Image, UnidentifiedImageError

# By content, whatever a file is called: some of ImageNet's .JPEG files hold a PNG.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")

# The shapes of a training window, width over height, and how often one is tried: Szegedy et al., "Going
# deeper with convolutions", 2015, section 6, as PyTorch and MindSpore do it.
_SHAPES = (3 / 4, 4 / 3)
_ATTEMPTS = 10

Box = tuple[float, float, float, float]


class BrokenImageError(Exception):
    """The bytes can't be decoded to an image; the text says what is wrong with them."""


def decode(content: bytes) -> Image.Image:
    """Decodes an image.

    Args:
        content: the bytes of an image file.

    Returns:
        The image in RGB.

    Raises:
        BrokenImageError: the bytes are cut off or damaged, or of another format.
        MemoryError: there is no room for the image.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.convert("RGB")
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise BrokenImageError(f"is none of {', '.join(FORMATS)}") from None
    # Damaged files make Pillow's parsers raise errors of many kinds.
    except Exception as error:
        raise BrokenImageError(f"can't be decoded: {str(error).rstrip('.')}") from error


def random_window(width: int, height: int, least_area: float, generator: random.Random) -> Box:
    """Draws a window of random area and shape.

    Args:
        width: of the image.
        height: of the image.
        least_area: as a share of the image's.
        generator: where the random numbers come from.

    Returns:
        Left, top, right and bottom in whole pixels. Where no window that was tried fits, the largest one in
        the middle whose shape is allowed.
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


def middle_square(width: int, height: int, share: float) -> Box:
    """The square in the middle whose side is a share of the shorter side.

    Args:
        width: of the image.
        height: of the image.
        share: at most 1.

    Returns:
        Left, top, right and bottom, with fractions of pixels.
    """
    side = min(width, height) * share
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def training_view(
    image: Image.Image, size: int, least_area: float, flip: bool, generator: random.Random
) -> Image.Image:
    """A random window, scaled to a square and mirrored by the toss of a coin.

    Args:
        image: the image.
        size: pixels on a side of the result.
        least_area: of the window, as a share of the image's.
        flip: whether the coin is tossed.
        generator: where the random numbers come from.

    Returns:
        The square.
    """
    mirrored = generator.random() < 0.5
    box = random_window(image.width, image.height, least_area, generator)
    view = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip and mirrored else view


def evaluation_view(image: Image.Image, size: int, resize: int) -> Image.Image:
    """The square in the middle of the image, as if that had been scaled so that its shorter side is `resize`.

    Scaling the square alone comes to the same, with less work.

    Args:
        image: the image.
        size: pixels on a side of the result.
        resize: at least `size`.

    Returns:
        The square.
    """
    box = middle_square(image.width, image.height, size / resize)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
