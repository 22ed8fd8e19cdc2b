"""Distribution of an optimizer's curvature work over ranks, according to its options."""

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


def check_mean_over_ranks(world: World, mean_reduction: bool) -> None:
    """Check that gradients are reduced over ranks as losses are reduced over samples.

    Args:
        world: the ranks.
        mean_reduction: whether the loss is a mean.

    Raises:
        ValueError: if the loss is a mean, but gradients are summed.
    """
    if mean_reduction and not world.averages_gradients:
        raise ValueError(
            "gradients_mean must be True in mindspore.set_auto_parallel_context with reduction='mean', "
            "so that gradients are averaged over ranks as losses are averaged over samples, got False"
        )


def distribute_curvature(
    blocks: Sequence[Any],
    world: World,
    distribution: Distribution | None,
    policies: tuple[RefreshPolicy, RefreshPolicy],
    damping: Any,
    *,
    by_layer: bool,
) -> DistributedCurvature:
    """Create the distributed curvature of an optimizer.

    Args:
        blocks: its curvature blocks.
        world: the ranks.
        distribution: the option ``distribution``; None for the defaults.
        policies: the refresh policies of statistics and inverses.
        damping: the option ``damping``.
        by_layer: whether each layer has its own refresh steps of the inverse.

    Returns:
        The distributed curvature.

    Raises:
        ValueError: if a block's statistics can't be summed over ranks, or reduce-scatter is requested but
            not supported.
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
    shapes: Sequence[tuple[int, ...]],
    refreshes: Parameter,
) -> DistributedPreconditioner:
    """Create the operator in which each rank preconditions the layers that it owns.

    Args:
        blocks: the curvature blocks.
        curvature: assigns blocks to their owners.
        positions: indices of the gradients of weight and bias, per block.
        shapes: shapes of all gradients.
        refreshes: a Parameter that every step writes after its refresh.

    Returns:
        The operator.
    """
    parts = [
        Preconditioner([blocks[i] for i in owned], [positions[i] for i in owned], len(shapes))
        if owned
        else None
        for owned in curvature.of_rank
    ]
    return DistributedPreconditioner(parts, curvature.of_rank, curvature.rank, shapes, refreshes)
