"""The part of every batch that a process of a distributed run takes."""

from __future__ import annotations

from dataclasses import dataclass

from model_zoo.common.errors import DataError


@dataclass(frozen=True)
class Shard:
    """One of `size` equal parts.

    Attributes:
        rank: the index of the part, from 0.
        size: the number of parts.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        """Checks the rank and the size.

        Raises:
            ValueError: the size is below 1, or the rank is not from 0 to size - 1.
        """
        if self.size < 1:
            raise ValueError(f"size: must be an integer of at least 1, got {self.size!r}")
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank: must be an integer from 0 to {self.size - 1}, got {self.rank!r}")


def check_batch_divides(batch_size: int, ranks: int) -> None:
    """Checks that processes can divide a batch equally.

    Args:
        batch_size: the samples of a batch of all processes.
        ranks: the number of processes.

    Raises:
        DataError: they can't.
    """
    if batch_size % ranks:
        raise DataError(f"data.batch_size {batch_size} can't be divided equally among {ranks} processes.")
