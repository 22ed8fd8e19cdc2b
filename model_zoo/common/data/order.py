"""The order of an epoch's images and the random numbers that augment them.

Both are functions of (seed, epoch) alone. Each image has random numbers of its own, drawn for the whole epoch
at once: what becomes of an image depends neither on the process, the thread nor the batch that it is read in,
so that batches can be left out and shared out freely.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_zoo.common.data.shards import Shard

_ORDER, _AUGMENTATION = 0, 1


def _random_integers(count: int, seed: int, epoch: int, stream: int) -> NDArray[np.uint64]:
    # The bits of PCG64 are the same in every version of NumPy; what Generator's methods make of them is not.
    entropy = np.random.SeedSequence(seed, spawn_key=(epoch, stream))
    bits: NDArray[np.uint64] = np.random.PCG64(entropy).random_raw(count)
    return bits


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of the images.

    Args:
        count: how many images there are.
        seed: the run's seed.
        epoch: the epoch, from 0.

    Returns:
        The numbers from 0 to count - 1 in the order of the epoch.
    """
    return np.argsort(_random_integers(count, seed, epoch, _ORDER), kind="stable")


def epoch_draws(count: int, per_image: int, seed: int, epoch: int) -> NDArray[np.float64]:
    """Uniform random numbers for the augmentation of every image.

    Args:
        count: how many images there are.
        per_image: how many numbers an image needs.
        seed: the run's seed.
        epoch: the epoch, from 0.

    Returns:
        Numbers in [0, 1), of shape (count, per_image); row i belongs to image i of the data set.
    """
    bits = _random_integers(count * per_image, seed, epoch, _AUGMENTATION)
    # 53 bits are what a float64 holds exactly.
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(count, per_image)


def epoch_keys(count: int, seed: int, epoch: int) -> NDArray[np.uint64]:
    """One number an image, to seed a generator where images need random numbers of varying count.

    Args:
        count: how many images there are.
        seed: the run's seed.
        epoch: the epoch, from 0.

    Returns:
        64 random bits an image; entry i belongs to image i of the data set.
    """
    return _random_integers(count, seed, epoch, _AUGMENTATION)


def training_plan(order: NDArray[np.int64], batch_size: int, shard: Shard, skip: int) -> NDArray[np.int64]:
    """Which images make up the batches of one process.

    Global batch b holds images b * batch_size to (b + 1) * batch_size - 1 of the order for any number of
    processes; each takes an equal run of them. An incomplete last batch is left out.

    Args:
        order: the images in the epoch's order.
        batch_size: images in a global batch, a multiple of the number of processes.
        shard: the process.
        skip: how many batches are left out at the start.

    Returns:
        The image numbers, of shape (batches, batch_size / shard.size).
    """
    whole = len(order) // batch_size
    batches = order[: whole * batch_size].reshape(whole, shard.size, batch_size // shard.size)
    return batches[skip:, shard.rank]


def evaluation_plan(count: int, batch_size: int, shard: Shard) -> list[NDArray[np.int64]]:
    """Which images make up the evaluation batches of one process: all of them together take each image once.

    Args:
        count: how many images there are.
        batch_size: images in a batch of one process.
        shard: the process; it takes every shard.size-th image.

    Returns:
        The image numbers of each batch; the last may hold fewer.
    """
    mine = np.arange(shard.rank, count, shard.size)
    return [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
