"""How the curvature work of an optimizer is shared out over devices: the option, and who takes part."""

from __future__ import annotations

from dataclasses import dataclass

import mindspore as ms
from mindspore.communication import get_group_size, get_rank
from mindspore.communication.management import GlobalComm

EXCHANGES = ("inverses", "gradients")
COLLECTIVES = ("auto", "all_reduce", "reduce_scatter")


@dataclass(frozen=True)
class Distribution:
    """How ranks of a data-parallel run share the curvature work.

    Every layer has an owner, the rank that recomputes its inverses from the statistics of all ranks.

    Attributes:
        exchange: what owners send. "inverses": their inverses to all, after a refresh; then every rank
            preconditions all gradients. "gradients": the preconditioned gradients of their layers, in every
            step. The former sends more at once and seldom; with the latter a rank's steps use the inverses of
            its own layers alone, and it preconditions those alone.
        collective: how statistics meet when inverses are due. "all_reduce": all ranks get the averages of all
            layers. "reduce_scatter": owners get the sums of theirs, in equal parts that the largest fills:
            half of the traffic on few ranks, more on many. "auto": the latter on GPU and Ascend where nobody
            but the owner needs a layer's statistics and it sends less, else the former.

    Raises:
        ValueError: if one is not among these words.
    """

    exchange: str = "inverses"
    collective: str = "auto"

    def __post_init__(self) -> None:
        for name, accepted in (("exchange", EXCHANGES), ("collective", COLLECTIVES)):
            value = getattr(self, name)
            if value not in accepted:
                words = ", ".join(map(repr, accepted))
                raise ValueError(f"Distribution: {name} must be one of {words}, got {value!r}")


@dataclass(frozen=True)
class World:
    """The ranks that train together.

    Attributes:
        rank: this process's.
        size: how many there are, more than one.
        averages_gradients: whether gradients arrive averaged over ranks, else summed.
    """

    rank: int
    size: int
    averages_gradients: bool


def find_world(distribution: Distribution | None) -> World | None:
    """The ranks over which an optimizer distributes its curvature, as MindSpore is set up now.

    Args:
        distribution: the optimizer's option. With None there is something to distribute in MindSpore's
            data-parallel mode only; else also where a training loop averages the gradients itself.

    Returns:
        The ranks; None where there is one alone.

    Raises:
        TypeError: if the option is neither None nor a Distribution.
        ValueError: if MindSpore is in a parallel mode that cuts layers or tensors.
        RuntimeError: if the communication has not been initialised.
    """
    if distribution is not None and not isinstance(distribution, Distribution):
        raise TypeError(f"distribution must be None or a ms_kfac.parallel.Distribution, got {distribution!r}")
    mode = ms.get_auto_parallel_context("parallel_mode")
    data_parallel = mode == ms.ParallelMode.DATA_PARALLEL
    if not data_parallel and mode != ms.ParallelMode.STAND_ALONE:
        raise ValueError(
            "parallel_mode must be 'stand_alone' or 'data_parallel', because statistics are taken of whole "
            f"layers, got {mode!r}"
        )
    if not data_parallel and distribution is None:
        return None
    if not GlobalComm.INITED:
        raise RuntimeError(
            "the optimizer distributes its curvature over the ranks of a group: call "
            "mindspore.communication.init() before it is made"
        )
    size = get_group_size()
    if size == 1:
        return None
    averages = bool(ms.get_auto_parallel_context("gradients_mean"))
    return World(get_rank(), size, averages if data_parallel else True)
