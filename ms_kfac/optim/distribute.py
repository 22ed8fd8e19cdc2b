"""What of an optimizer is shared out over ranks, from its options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Parameter

from ms_kfac.damping import LevenbergMarquardt
from ms_kfac.optim.preconditioner import Preconditioner
from ms_kfac.parallel.distributed_curvature import DistributedCurvature
from ms_kfac.parallel.distributed_preconditioner import DistributedPreconditioner
from ms_kfac.parallel.distribution import Distribution, World
from ms_kfac.refresh import RefreshPolicy


def distribute_curvature(
    blocks: Sequence[Any],
    world: World,
    distribution: Distribution | None,
    policies: tuple[RefreshPolicy, RefreshPolicy],
    damping: Any,
    *,
    by_layer: bool,
) -> DistributedCurvature:
    """The exchanges of an optimizer's curvature.

    Args:
        blocks: its curvature blocks.
        world: the ranks.
        distribution: the option; None for the default one.
        policies: those of statistics and of inverses.
        damping: the option.
        by_layer: whether inverses are refreshed at steps of each layer's own.

    Returns:
        The exchanges.

    Raises:
        ValueError: if a block's statistics can't be added up over ranks, or reduce-scatter is asked for where
            it does not serve.
    """
    reason = ""
    for policy in policies:
        if policy.reads_statistics:
            reason = f"{type(policy).__name__} decides from the statistics of all layers"
    if isinstance(damping, LevenbergMarquardt):
        reason = "LevenbergMarquardt predicts the loss from the statistics of all layers"
    return DistributedCurvature(
        blocks,
        world,
        Distribution() if distribution is None else distribution,
        read_when_new=policies[0].reads_statistics,
        separate=policies[0].separate,
        by_layer=by_layer,
        read_by_all_reason=reason,
    )


def distribute_preconditioning(
    blocks: Sequence[Any],
    curvature: DistributedCurvature,
    positions: Sequence[tuple[int, ...]],
    parameters: Sequence[Any],
    refreshes: Parameter,
) -> DistributedPreconditioner:
    """Preconditioning by owners.

    Args:
        blocks: the curvature blocks.
        curvature: says who owns them.
        positions: for every block, where weight and bias stand among the parameters.
        parameters: all that are trained.
        refreshes: a Parameter that every step writes behind its refresh.

    Returns:
        The operator.
    """
    parts = [
        Preconditioner([blocks[i] for i in owned], [positions[i] for i in owned], len(parameters))
        if owned
        else None
        for owned in curvature.of_rank
    ]
    shapes = [tuple(parameter.shape) for parameter in parameters]
    return DistributedPreconditioner(parts, curvature.of_rank, curvature.rank, shapes, refreshes)
