"""Augmentation and normalization of whole batches in NumPy, from given random numbers."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


def random_crop(
    images: NDArray[np.uint8], padding: int, vertical: NDArray[np.float64], horizontal: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Pads images with zeros and takes a crop of the original size from each.

    Args:
        images: of shape (N, height, width, channels).
        padding: zeros added on every side.
        vertical: position of each crop, uniform in [0, 1), over the 2 * padding + 1 offsets.
        horizontal: the same for the other axis.

    Returns:
        Images of the same shape.
    """
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    # NumPy's type annotation accepts only one axis.
    windows = sliding_window_view(padded, (height, width), axis=(1, 2))  # type: ignore[call-overload]
    places = 2 * padding + 1
    tops, lefts = (vertical * places).astype(np.intp), (horizontal * places).astype(np.intp)
    return windows[np.arange(len(images)), tops, lefts].transpose(0, 2, 3, 1)


def normalise(
    images: NDArray[np.uint8], mean: tuple[float, ...], deviation: tuple[float, ...]
) -> NDArray[np.float32]:
    """Subtracts the channel means, divides by the standard deviations and moves channels first.

    Args:
        images: of shape (N, height, width, channels).
        mean: mean per channel, in 0 to 255.
        deviation: standard deviation per channel, in 0 to 255.

    Returns:
        Images of shape (N, channels, height, width).
    """
    channels = (1, -1, 1, 1)
    result = images.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    result -= np.asarray(mean, np.float32).reshape(channels)
    result /= np.asarray(deviation, np.float32).reshape(channels)
    return result


def flip(images: NDArray[np.float32], draws: NDArray[np.float64]) -> None:
    """Flips, in place and horizontally, the images whose random number is below one half.

    Args:
        images: of shape (N, channels, height, width); flipping uint8 images with channels last takes four
            times as long.
        draws: one number in [0, 1) per image.
    """
    chosen = np.flatnonzero(draws < 0.5)
    images[chosen] = images[chosen, ..., ::-1]
