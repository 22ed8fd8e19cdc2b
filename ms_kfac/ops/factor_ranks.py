"""Which form the Kronecker factors of a layer take: a batch's rows, or their d x d sum."""

from __future__ import annotations

import math
import warnings
from typing import Callable

Ranks = tuple[int, int]


class FactorRanks:
    """Decides once, from shapes that are known when a graph is compiled, how a layer's factors are kept.

    A factor of dimension d built from R < d rows has rank R: it is kept as those rows, and its rank here
    is R. From R = d on it is kept as a d x d sum, and its rank here is d.

    Statistics, inverses and the preconditioned gradient are compiled in graphs of their own and must agree.
    Hence the first of them to be compiled decides for good:

    * statistics know the rows of their own batch;
    * inverses go by the rows of the forward pass compiled last, which inside one compiled training step is
      that step's own. Where nothing has been compiled before, they take rank d, which is exact and dearer.

    Statistics loaded from a checkpoint decide before either.

    Args:
        name: the layer's name, for the warning.
        dimensions: of A and of G.
        steps: backward passes that feed one step.
        stored: reads the ranks that the layer's present statistics have, 0 where there are none.
        warns: whether a batch with more rows than a factor has room for deserves a warning.

    Attributes:
        chosen: the ranks of A and of G; None until they are decided.
    """

    def __init__(
        self,
        name: str,
        dimensions: Ranks,
        steps: int,
        stored: Callable[[], Ranks],
        *,
        warns: bool = True,
    ) -> None:
        self.name = name
        self.dimensions = dimensions
        self.steps = steps
        self.stored = stored
        self.chosen: Ranks | None = None
        self._expected: int | None = None
        self._warned: float = 0 if warns else math.inf

    def expect(self, rows: int) -> None:
        """Note the rows that the forward pass being compiled will bring; negative where they are dynamic."""
        self._expected = rows if rows > 0 else None

    def for_inverses(self) -> Ranks:
        """The ranks, decided now if they were not."""
        return self._choose(self._expected)

    def for_statistics(self, rows: int) -> Ranks:
        """The ranks for a batch of so many rows, decided now if they were not.

        Args:
            rows: rows that this batch brings; negative where they are dynamic.

        Returns:
            The ranks of A and G.

        Warns:
            UserWarning: if a factor kept as rows has room for fewer than that.
        """
        ranks = self._choose(rows if rows > 0 else None)
        short = [rank for rank, d in zip(ranks, self.dimensions) if rank < min(rows, d)]
        if short and rows > self._warned:
            self._warned = rows
            warnings.warn(
                f"layer {self.name}: the first step compiled settled the rank of its curvature at "
                f"{max(short)}, and a batch brings {rows} rows; the first {max(short)} of them stand for it. "
                "Start with the largest batch, or set accumulation_steps",
                stacklevel=2,
            )
        return ranks

    def _choose(self, rows: int | None) -> Ranks:
        if self.chosen is None:
            width = math.inf if rows is None else rows * self.steps
            ranks = [stored or int(min(width, d)) for stored, d in zip(self.stored(), self.dimensions)]
            self.chosen = (ranks[0], ranks[1])
        return self.chosen
