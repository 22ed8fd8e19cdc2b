"""Which part of every batch a process of a distributed run takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """One of `size` equal parts.

    Attributes:
        rank: the part's number, from 0.
        size: how many parts there are.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        """Refuses what is no part.

        Raises:
            ValueError: the size is below 1, or the rank is not from 0 to size - 1.
        """
        if self.size < 1:
            raise ValueError(f"size is {self.size!r}; accepted: a whole number of at least 1")
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank is {self.rank!r}; accepted: a whole number from 0 to {self.size - 1}")
