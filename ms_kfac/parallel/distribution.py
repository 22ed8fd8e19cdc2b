"""The ``distribution`` option of an optimizer, and the ranks that take part."""

from __future__ import annotations

from dataclasses import dataclass

import mindspore as ms
from mindspore.communication import get_group_size, get_rank
from mindspore.communication.management import GlobalComm

from ms_kfac.values import check_choice, shown

EXCHANGES = ("inverses", "gradients")
COLLECTIVES = ("auto", "all_reduce", "reduce_scatter")


@dataclass(frozen=True)
class Distribution:
    """Distribution of the curvature work over the ranks of a data-parallel run.

    Every layer has an owner: the rank that recomputes its inverses from the statistics of all ranks.

    Attributes:
        exchange: what owners send. "inverses": after a refresh, owners send their inverses to all ranks, and
            every rank preconditions all gradients. "gradients": in every step, owners send the preconditioned
            gradients of their layers. "inverses" sends more data at once, but rarely. With "gradients" each
            rank uses the inverses of its own layers only, and preconditions these layers only.
        collective: how statistics are reduced when inverses are due. "all_reduce": all ranks get the averages
            of all layers. "reduce_scatter": owners get the sums of their layers, in equal parts padded to the
            largest; it halves the traffic on few ranks and costs more on many. "auto": "reduce_scatter" on
            GPU and Ascend if only the owner needs a layer's statistics and it sends less, else "all_reduce".

    Raises:
        TypeError: if a value is not a string.
        ValueError: if it is not one of these.
    """

    exchange: str = "inverses"
    collective: str = "auto"

    def __post_init__(self) -> None:
        for name, accepted in (("exchange", EXCHANGES), ("collective", COLLECTIVES)):
            check_choice(f"Distribution: {name}", getattr(self, name), accepted)


@dataclass(frozen=True)
class World:
    """The ranks that train together.

    Attributes:
        rank: the rank of this process.
        size: number of ranks, more than one.
        averages_gradients: True if gradients are averaged over ranks, False if they are summed.
    """

    rank: int
    size: int
    averages_gradients: bool


def find_world(distribution: Distribution | None) -> World | None:
    """Find the ranks over which an optimizer distributes its curvature, from MindSpore's current settings.

    Args:
        distribution: the optimizer's option. None distributes in MindSpore's data-parallel mode only. A
            Distribution also distributes if a training loop averages the gradients itself.

    Returns:
        The ranks; None if nothing is distributed: a single rank, or None outside data-parallel mode.

    Raises:
        TypeError: if the option is neither None nor a Distribution.
        ValueError: if MindSpore is in a parallel mode that splits layers or tensors.
        RuntimeError: if communication is not initialized.
    """
    if distribution is not None and not isinstance(distribution, Distribution):
        raise TypeError(
            f"distribution must be None or a ms_kfac.parallel.Distribution, got {shown(distribution)}"
        )
    mode = ms.get_auto_parallel_context("parallel_mode")
    data_parallel = mode == ms.ParallelMode.DATA_PARALLEL
    if not data_parallel and mode != ms.ParallelMode.STAND_ALONE:
        raise ValueError(
            "parallel_mode must be 'stand_alone' or 'data_parallel', because statistics need whole layers, "
            f"got {mode!r}"
        )
    if not data_parallel and distribution is None:
        return None
    if not GlobalComm.INITED:
        raise RuntimeError(
            "communication must be initialized to distribute curvature over ranks: call "
            "mindspore.communication.init() before the optimizer is created"
        )
    size = get_group_size()
    if size == 1:
        return None
    averages = bool(ms.get_auto_parallel_context("gradients_mean"))
    return World(get_rank(), size, averages if data_parallel else True)
