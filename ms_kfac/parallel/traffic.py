"""What collectives move, in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
        operator: "all_reduce", "reduce_scatter", "all_gather" or "broadcast".
        size: bytes that each rank puts in; of broadcasts, bytes of all together.
    """

    operator: str
    size: int

    def sent(self, ranks: int) -> float:
        r"""Bytes that each rank sends in a ring, the least that any algorithm does.

        :math:`2 (R - 1) / R` times what it puts into an all-reduce, :math:`(R - 1) / R` times that of a
        reduce-scatter, :math:`R - 1` times its part of an all-gather (Patarasuk & Yuan 2009, "Bandwidth
        Optimal All-reduce Algorithms for Clusters of Workstations"); a broadcast is passed on once, by all
        but the last.

        Args:
            ranks: R.

        Returns:
            The bytes; of broadcasts, the most that a rank sends.
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
    """The collectives of one optimizer's curvature; None for what is not exchanged.

    Attributes:
        ranks: their number.
        owners: the rank that owns each layer.
        statistics: those that meet when inverses are due.
        new_statistics: those that meet whenever some have been taken; where each has steps of its own, of all
            together.
        inverses: what follows a refresh; where layers have steps of their own, of all together.
        gradients: preconditioned gradients, in every step.
    """

    ranks: int
    owners: tuple[int, ...]
    statistics: Collective | None
    new_statistics: Collective | None
    inverses: Collective | None
    gradients: Collective | None

    def sent_at_refresh(self) -> float:
        """Bytes that each rank sends when the inverses of all layers are recomputed.

        Returns:
            They.
        """
        return self._sent(self.statistics) + self._sent(self.inverses)

    def sent_with_statistics(self) -> float:
        """Bytes that each rank sends beside that in a step that takes statistics.

        Returns:
            They.
        """
        return self._sent(self.new_statistics)

    def sent_each_step(self) -> float:
        """Bytes that each rank sends in every step for the curvature, those for gradients themselves apart.

        Returns:
            They.
        """
        return self._sent(self.gradients)

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

    def _sent(self, collective: Collective | None) -> float:
        return 0.0 if collective is None else collective.sent(self.ranks)
