"""How often a checkpoint is written."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"\s*(\d+)\s*(epochs?|steps?)?\s*")


@dataclass(frozen=True)
class CheckpointInterval:
    """Every so many epochs or steps; epochs end with one either way.

    Attributes:
        count: how many.
        unit: "epoch" or "step".
    """

    count: int
    unit: str = "epoch"

    def __post_init__(self) -> None:
        """Refuses what is no interval."""
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"count must be a whole number of at least 1, but is {self.count!r}")
        if self.unit not in ("epoch", "step"):
            raise ValueError(f"unit must be 'epoch' or 'step', but is {self.unit!r}")

    @classmethod
    def parse(cls, text: str) -> CheckpointInterval:
        """Reads an interval from the command line.

        Args:
            text: "2" or "2epochs" for epochs, "500steps" for steps.

        Returns:
            The interval.

        Raises:
            ValueError: the text is none.
        """
        match = _FORM.fullmatch(text)
        if match is None or int(match[1]) < 1:
            raise ValueError(f"{text!r} is no interval; accepted: as 2, 2epochs or 500steps")
        return cls(int(match[1]), (match[2] or "epoch").rstrip("s"))

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return f"{self.count}{self.unit}s"

    def is_due(self, unit: str, done: int) -> bool:
        """Whether a checkpoint is due when the `done`-th epoch or step has ended."""
        return unit == self.unit and done % self.count == 0
