"""Traffic of collectives, in bytes."""

from __future__ import annotations

from dataclasses import dataclass


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
