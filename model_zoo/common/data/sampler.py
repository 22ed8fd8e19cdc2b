"""The order of an epoch's images, the windows of an epoch of text, and random numbers for augmentation.

All depend on (seed, epoch) alone. Each image has its own random numbers, drawn for the whole epoch at once.
The result for an image therefore does not depend on the process, the thread or the batch that reads it, and
batches can be skipped and distributed freely.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_zoo.common.data.shards import Shard

_ORDER, _AUGMENTATION, _WINDOWS = 0, 1, 2


def _random_integers(count: int, seed: int, epoch: int, stream: int) -> NDArray[np.uint64]:
    # PCG64's bits are the same in every version of NumPy; the results of Generator's methods are not.
    entropy = np.random.SeedSequence(seed, spawn_key=(epoch, stream))
    bits: NDArray[np.uint64] = np.random.PCG64(entropy).random_raw(count)
    return bits


def epoch_permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of the images.

    Args:
        count: the number of images.
        seed: the run's seed.
        epoch: the epoch, from 0.

    Returns:
        The indices from 0 to count - 1 in the order of the epoch.
    """
    return np.argsort(_random_integers(count, seed, epoch, _ORDER), kind="stable")


def augmentation_draws(count: int, per_image: int, seed: int, epoch: int) -> NDArray[np.float64]:
    """Uniform random numbers for the augmentation of every image.

    Args:
        count: the number of images.
        per_image: random numbers per image.
        seed: the run's seed.
        epoch: the epoch, from 0.

    Returns:
        Numbers in [0, 1), of shape (count, per_image); row i belongs to image i of the data set.
    """
    bits = _random_integers(count * per_image, seed, epoch, _AUGMENTATION)
    # A float64 represents 53 bits exactly.
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(count, per_image)


def augmentation_keys(count: int, seed: int, epoch: int) -> NDArray[np.uint64]:
    """One random key per image, to seed a generator if images need a varying count of random numbers.

    Args:
        count: the number of images.
        seed: the run's seed.
        epoch: the epoch, from 0.

    Returns:
        64 random bits per image; entry i belongs to image i of the data set.
    """
    return _random_integers(count, seed, epoch, _AUGMENTATION)


def window_starts(count: int, places: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The starts of an epoch's windows in a text, uniform and independent.

    Args:
        count: the number of windows.
        places: the number of places at which a window can start.
        seed: the run's seed.
        epoch: the epoch, from 0.

    Returns:
        Integers from 0 to places - 1, of shape (count,).
    """
    # A text has far fewer than 2^63 places, so the remainder's preference for early ones is negligible.
    return (_random_integers(count, seed, epoch, _WINDOWS) % np.uint64(places)).astype(np.int64)


def training_batch_indices(
    order: NDArray[np.int64], batch_size: int, shard: Shard, skip: int
) -> NDArray[np.int64]:
    """The images in the training batches of one process.

    Global batch b holds images b * batch_size to (b + 1) * batch_size - 1 of the order, for any number of
    processes. Each process takes an equal, contiguous part. An incomplete last batch is dropped.

    Args:
        order: the image indices in the epoch's order.
        batch_size: images in a global batch, a multiple of the number of processes.
        shard: the process.
        skip: how many batches to skip at the start.

    Returns:
        The image indices, of shape (batches, batch_size / shard.size).
    """
    whole = len(order) // batch_size
    batches = order[: whole * batch_size].reshape(whole, shard.size, batch_size // shard.size)
    return batches[skip:, shard.rank]


def evaluation_batch_indices(count: int, batch_size: int, shard: Shard) -> list[NDArray[np.int64]]:
    """The images in the evaluation batches of one process. Together, the processes take each image once.

    Args:
        count: the number of images.
        batch_size: images in a batch of one process.
        shard: the process; it takes every shard.size-th image.

    Returns:
        The image indices of each batch; the last batch may be smaller.
    """
    mine = np.arange(shard.rank, count, shard.size)
    return [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
