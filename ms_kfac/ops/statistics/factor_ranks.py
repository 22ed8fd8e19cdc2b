"""Storage of SKFAC's Kronecker factors: the rows of a batch, or their d x d second moment."""

from __future__ import annotations

import math
import warnings
from typing import Callable

Ranks = tuple[int, int]


class FactorRanks:
    """Fix the ranks of a layer's factors, once, from shapes that are static when a graph is compiled.

    A factor of dimension d from R < d rows has rank R. It is stored as those rows. For R >= d the factor is
    stored as a d x d sum, and its rank is d.

    Statistics, inverses and the preconditioned gradient are compiled in separate graphs, which must use the
    same ranks. The first graph to be compiled fixes them:

    * statistics use the number of rows of their batch;
    * inverses and preconditioning without native kernels use the number of rows of the forward pass that was
      compiled last. Inside one compiled training step, this is the forward pass of that step. If no forward
      pass was compiled, they use rank d, which is exact but more expensive.

    Native kernels of inverses and preconditioning fix nothing: they read the ranks when they run. Statistics
    loaded from a checkpoint take precedence over both.

    Args:
        name: the layer's name, for the warning.
        dimensions: dimensions of A and G.
        steps: number of backward passes per step.
        stored: returns the ranks of the layer's current statistics, 0 for a factor without statistics.
        warns: whether to warn if a batch has more rows than a factor can store.

    Attributes:
        chosen: ranks of A and G; None until they are fixed.
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
        """Record the number of rows of the forward pass being compiled, negative if it is dynamic."""
        self._expected = rows if rows > 0 else None

    def for_inverses(self) -> Ranks:
        """Ranks of A and G, fixed by this call if they are not fixed yet."""
        return self._choose(self._expected)

    def for_statistics(self, rows: int) -> Ranks:
        """Ranks of A and G for a batch, fixed by this call if they are not fixed yet.

        Args:
            rows: number of rows of this batch, negative if it is dynamic.

        Returns:
            The ranks of A and G.

        Warns:
            UserWarning: if a factor stored as rows cannot store that many.
        """
        ranks = self._choose(rows if rows > 0 else None)
        short = [rank for rank, d in zip(ranks, self.dimensions) if rank < min(rows, d)]
        if short and rows > self._warned:
            self._warned = rows
            warnings.warn(
                f"layer {self.name}: the first compiled step fixed the rank of the curvature at "
                f"{max(short)}, but a batch has {rows} rows. The optimizer uses the first {max(short)} rows. "
                "To avoid this warning, start with the largest batch or set accumulation_steps",
                stacklevel=2,
            )
        return ranks

    def _choose(self, rows: int | None) -> Ranks:
        if self.chosen is None:
            width = math.inf if rows is None else rows * self.steps
            ranks = [stored or int(min(width, d)) for stored, d in zip(self.stored(), self.dimensions)]
            self.chosen = (ranks[0], ranks[1])
        return self.chosen
