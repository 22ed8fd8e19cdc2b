"""Assignment of layers to the ranks that refresh them, by estimated work."""

from __future__ import annotations

from collections.abc import Sequence

from ms_kfac.ops.graph.flat_buffer import SyncedTensor


def refresh_work(shares: Sequence[SyncedTensor]) -> float:
    """Estimate the work of recomputing inverses: the sum of the cubes of their dimensions.

    Args:
        shares: the tensors that a refresh writes.

    Returns:
        The number of multiplications, up to a constant factor.
    """
    work = 0.0
    for share in shares:
        *leading, last = share.parameter.shape or (1,)
        square = len(leading) > 0 and leading[-1] == last
        numbers = last
        for size in leading:
            numbers *= size
        work += float(numbers) * (last if square else 1)
    return work


def place(work: Sequence[float], ranks: int) -> tuple[int, ...]:
    """Assign layers to ranks by longest processing time first (LPT).

    Layers are assigned in descending order of cost, each to the rank with the smallest load so far. The load
    of the busiest rank is at most 4/3 - 1/(3 ranks) times that of the optimal assignment (Graham 1969,
    "Bounds on Multiprocessing Timing Anomalies"). Equal inputs give equal owners on every machine: ties go to
    the earlier layer and to the lower rank.

    Args:
        work: cost per layer, not negative.
        ranks: number of ranks, at least 1.

    Returns:
        The owner of each layer.

    Raises:
        ValueError: if ``ranks`` is below 1.
    """
    if ranks < 1:
        raise ValueError(f"place: ranks must be at least 1, got {ranks!r}")
    load = [0.0] * ranks
    owners = [0] * len(work)
    for layer in sorted(range(len(work)), key=lambda index: (-work[index], index)):
        rank = min(range(ranks), key=lambda candidate: (load[candidate], candidate))
        owners[layer] = rank
        load[rank] += work[layer]
    return tuple(owners)
