"""Which rank refreshes which layer."""

from __future__ import annotations

from collections.abc import Sequence


def place(work: Sequence[float], ranks: int) -> tuple[int, ...]:
    """Owners of layers, the longest first, each to the rank with the least so far.

    The busiest rank has at most 4/3 - 1/(3 ranks) of what the best placement gives it (Graham 1969, "Bounds
    on Multiprocessing Timing Anomalies"). Equal inputs give equal owners on every machine: ties go to the
    earlier layer and to the lower rank.

    Args:
        work: what each layer costs, not negative.
        ranks: their number, at least 1.

    Returns:
        The owner of each layer.

    Raises:
        ValueError: if there is no rank.
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
