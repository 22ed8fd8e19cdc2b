"""Traffic of collectives in bytes, and its prediction for a number of ranks from layer sizes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ms_kfac.ops.linalg.packed_triangle import packed_size
from ms_kfac.parallel.assignment import place
from ms_kfac.parallel.distribution import Distribution

_BYTES = 4


@dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
        operator: "all_reduce", "reduce_scatter", "all_gather" or "broadcast".
        size: input bytes per rank; for broadcasts, the total bytes of all broadcasts.
    """

    operator: str
    size: int

    def sent(self, ranks: int) -> float:
        r"""Compute the bytes that each rank sends in a ring, the minimum over all algorithms.

        A ring sends :math:`2 (R - 1) / R` times the input of an all-reduce, :math:`(R - 1) / R` times the
        input of a reduce-scatter, and :math:`R - 1` times the input of an all-gather (Patarasuk & Yuan 2009,
        "Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations"). In a broadcast every rank but
        the last sends the data once.

        Args:
            ranks: number of ranks R.

        Returns:
            The bytes per rank; for broadcasts, the maximum over ranks.
        """
        times = {
            "all_reduce": 2.0 * (ranks - 1) / ranks,
            "reduce_scatter": (ranks - 1) / ranks,
            "all_gather": float(ranks - 1),
            "broadcast": float(ranks > 1),
        }
        return times[self.operator] * self.size


@dataclass(frozen=True)
class Traffic:
    """The collectives of one optimizer's curvature; None for a collective that is not used.

    Attributes:
        ranks: number of ranks.
        owners: the rank that owns each layer.
        statistics: statistics that are reduced when inverses are due.
        new_statistics: statistics that are reduced whenever they are taken. If each statistic has its own
            schedule, the total over all of them.
        inverses: inverses that are sent after a refresh. If each layer has its own schedule, the total over
            all layers.
        gradients: preconditioned gradients, sent in every step.
    """

    ranks: int
    owners: tuple[int, ...]
    statistics: Collective | None
    new_statistics: Collective | None
    inverses: Collective | None
    gradients: Collective | None

    def sent_at_refresh(self) -> float:
        """Compute the bytes that each rank sends when the inverses of all layers are recomputed.

        Returns:
            The bytes per rank.
        """
        return self._sent(self.statistics) + self._sent(self.inverses)

    def sent_with_statistics(self) -> float:
        """Compute the bytes that each rank sends in addition in a step that takes statistics.

        Returns:
            The bytes per rank.
        """
        return self._sent(self.new_statistics)

    def sent_each_step(self) -> float:
        """Compute the bytes that each rank sends for the curvature in every step.

        The all-reduce of the raw gradients is not included.

        Returns:
            The bytes per rank.
        """
        return self._sent(self.gradients)

    def sent_on_average(self, factor_interval: float, inverse_interval: float) -> float:
        """Compute the average bytes that each rank sends per step.

        Args:
            factor_interval: steps between two updates of the statistics.
            inverse_interval: steps between two refreshes.

        Returns:
            The bytes per rank and step.
        """
        seldom = self.sent_with_statistics() / factor_interval + self.sent_at_refresh() / inverse_interval
        return self.sent_each_step() + seldom

    def _sent(self, collective: Collective | None) -> float:
        return 0.0 if collective is None else collective.sent(self.ranks)


def padded_gather_is_cheaper(sizes: Sequence[int]) -> bool:
    """Whether a zero-padded all-gather moves at most as many bytes as an all-reduce.

    The more ranks there are, the more their sizes differ, up to ranks without layers. The padded parts then
    hold many times the actual elements. An all-reduce never sends more than twice the actual elements.

    Args:
        sizes: number of elements per rank.

    Returns:
        True if the padded parts hold at most twice the actual elements.
    """
    return max(sizes) * len(sizes) <= 2 * sum(sizes)


@dataclass(frozen=True)
class LayerSize:
    """Factor dimensions of a dense or convolutional layer.

    Attributes:
        dim_A: dimension of A per group, including the bias coordinate.
        dim_G: dimension of G per group.
        groups: number of groups.
        bias: whether the layer has a bias.
    """

    dim_A: int  # noqa: N815
    dim_G: int  # noqa: N815
    groups: int = 1
    bias: bool = False

    def work(self) -> float:
        """Estimate the work of inverting the factors, in multiplications up to a constant factor.

        Returns:
            The sum of the cubes of the factor dimensions, over all groups.
        """
        return float(self.groups) * (float(self.dim_A) ** 3 + float(self.dim_G) ** 3)

    def triangles(self) -> int:
        """Count the elements in the packed triangles of both factors.

        Returns:
            The number of elements, over all groups.
        """
        return self.groups * (packed_size(self.dim_A) + packed_size(self.dim_G))

    def weights(self) -> int:
        """Count the elements of the gradient.

        Returns:
            The number of elements, over all groups.
        """
        return self.groups * self.dim_A * self.dim_G


def plan(layers: Sequence[LayerSize], ranks: int, distribution: Distribution) -> Traffic:
    """Predict the traffic of K-FAC with fixed intervals, without a network or a distributed run.

    The result equals ``optimizer.traffic()`` of :class:`ms_kfac.KFAC` on the same layers.

    Args:
        layers: the preconditioned layers, in network order.
        ranks: number of ranks, at least 1.
        distribution: the exchange and the collective. ``collective="auto"`` is resolved as on a GPU.

    Returns:
        Owners and bytes.

    Raises:
        ValueError: if ``layers`` is empty or ``ranks`` is below 1.
    """
    if not layers:
        raise ValueError("plan: layers must hold at least one LayerSize, got none")
    owners = place([layer.work() for layer in layers], ranks)
    # + 2: one weight per factor. + 1 + bias: one inner product per preconditioned parameter.
    statistics, inverses, gradients = [0] * ranks, [0] * ranks, [0] * ranks
    for layer, owner in zip(layers, owners):
        statistics[owner] += layer.triangles() + 2
        inverses[owner] += layer.triangles()
        gradients[owner] += layer.weights() + 1 + int(layer.bias)
    scatters = distribution.collective == "reduce_scatter"
    scatters = scatters or (distribution.collective == "auto" and padded_gather_is_cheaper(statistics))
    if scatters:
        met = Collective("reduce_scatter", _BYTES * max(statistics) * ranks)
    else:
        met = Collective("all_reduce", _BYTES * sum(statistics))
    sends_inverses = distribution.exchange == "inverses"
    return Traffic(
        ranks=ranks,
        owners=owners,
        statistics=met,
        new_statistics=None,
        inverses=_gathered(inverses) if sends_inverses else None,
        gradients=None if sends_inverses else _gathered(gradients),
    )


def _gathered(sizes: Sequence[int]) -> Collective:
    if padded_gather_is_cheaper(sizes):
        return Collective("all_gather", _BYTES * max(sizes))
    return Collective("all_reduce", _BYTES * sum(sizes))
