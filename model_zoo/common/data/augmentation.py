"""Augmentation and normalisation of whole batches in NumPy, from random numbers drawn beforehand."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


def crop_shifted(
    images: NDArray[np.uint8], padding: int, vertical: NDArray[np.float64], horizontal: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Pads images with zeros and cuts windows of the old size out of them.

    Args:
        images: of shape (N, height, width, channels).
        padding: zeros added on every side.
        vertical: where each window starts, in [0, 1) of the 2 * padding + 1 places.
        horizontal: the same to the side.

    Returns:
        Images of the same shape.
    """
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    # NumPy's annotation knows one axis only.
    windows = sliding_window_view(padded, (height, width), axis=(1, 2))  # type: ignore[call-overload]
    places = 2 * padding + 1
    tops, lefts = (vertical * places).astype(np.intp), (horizontal * places).astype(np.intp)
    return windows[np.arange(len(images)), tops, lefts].transpose(0, 2, 3, 1)


def normalise(
    images: NDArray[np.uint8], mean: tuple[float, ...], deviation: tuple[float, ...]
) -> NDArray[np.float32]:
    """Subtracts the mean of each channel, divides by its deviation and puts channels first.

    Args:
        images: of shape (N, height, width, channels).
        mean: a number a channel, in bytes.
        deviation: a number a channel, in bytes.

    Returns:
        Images of shape (N, channels, height, width).
    """
    channels = (1, -1, 1, 1)
    result = images.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    result -= np.asarray(mean, np.float32).reshape(channels)
    result /= np.asarray(deviation, np.float32).reshape(channels)
    return result


def flip(images: NDArray[np.float32], draws: NDArray[np.float64]) -> None:
    """Mirrors, in place, those images whose draw is below one half.

    Args:
        images: of shape (N, channels, height, width); mirroring bytes with channels last takes four times as
            long.
        draws: a number in [0, 1) an image.
    """
    chosen = np.flatnonzero(draws < 0.5)
    images[chosen] = images[chosen, ..., ::-1]
