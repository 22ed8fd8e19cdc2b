"""What collectives move, in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    r"""The collectives of one optimizer's curvature.

    A ring of R ranks, which is the least that any algorithm sends, makes each rank send :math:`2 (R - 1) / R`
    times the vector of an all-reduce, :math:`(R - 1) / R` times that of a reduce-scatter, and :math:`R - 1`
    times its own part of an all-gather (Patarasuk & Yuan 2009, "Bandwidth Optimal All-reduce Algorithms for
    Clusters of Workstations").

    Attributes:
        ranks: R.
        owners: the rank that owns each layer.
        collective: of the statistics that meet when inverses are due: "all_reduce" or "reduce_scatter".
        statistics: bytes of the vector of those statistics.
        new_statistics: bytes that are all-reduced in a step that takes statistics; where they are taken at
            steps of their own, of all together.
        inverses: bytes of a rank's own part in the all-gather that follows a refresh; of all layers together
            where ``broadcasts``.
        gradients: bytes of a rank's own part in the all-gather of every step.
        broadcasts: whether each layer is refreshed at steps of its own and sent by a broadcast, which a rank
            in a chain passes on once.
    """

    ranks: int
    owners: tuple[int, ...]
    collective: str
    statistics: int
    new_statistics: int
    inverses: int
    gradients: int
    broadcasts: bool = False

    def sent_at_refresh(self) -> float:
        """Bytes that each rank sends when inverses are recomputed, of all layers.

        Returns:
            They.
        """
        times = 2.0 if self.collective == "all_reduce" else 1.0
        copies = 1 if self.broadcasts else self.ranks - 1
        return times * self._ring() * self.statistics + copies * self.inverses

    def sent_with_statistics(self) -> float:
        """Bytes that each rank sends beside that in a step that takes statistics.

        Returns:
            They.
        """
        return 2.0 * self._ring() * self.new_statistics

    def sent_each_step(self) -> float:
        """Bytes that each rank sends in every step for the curvature, those for gradients themselves apart.

        Returns:
            They.
        """
        return float((self.ranks - 1) * self.gradients)

    def sent_on_average(self, factor_interval: float, inverse_interval: float) -> float:
        """Bytes that each rank sends a step, on average.

        Args:
            factor_interval: steps from one batch of statistics to the next.
            inverse_interval: steps from one refresh to the next.

        Returns:
            They.
        """
        seldom = self.sent_with_statistics() / factor_interval + self.sent_at_refresh() / inverse_interval
        return self.sent_each_step() + seldom

    def _ring(self) -> float:
        return (self.ranks - 1) / self.ranks
