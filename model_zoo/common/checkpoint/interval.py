"""The interval between checkpoints."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"\s*(\d+)\s*(epochs?|steps?)?\s*")


@dataclass(frozen=True)
class CheckpointInterval:
    """A number of epochs or steps.

    Attributes:
        count: the number.
        unit: "epoch" or "step".
    """

    count: int
    unit: str = "epoch"

    def __post_init__(self) -> None:
        """Checks the count and the unit."""
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"count: must be an integer of at least 1, got {self.count!r}")
        if self.unit not in ("epoch", "step"):
            raise ValueError(f"unit: must be 'epoch' or 'step', got {self.unit!r}")

    @classmethod
    def parse(cls, text: str) -> CheckpointInterval:
        """Reads an interval from the command line.

        Args:
            text: "2" or "2epochs" for epochs, "500steps" for steps.

        Returns:
            The interval.

        Raises:
            ValueError: the text is not an interval.
        """
        match = _FORM.fullmatch(text)
        if match is None or int(match[1]) < 1:
            raise ValueError(f"must be an interval such as 2, 2epochs or 500steps, got {text!r}")
        return cls(int(match[1]), (match[2] or "epoch").rstrip("s"))

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return f"{self.count}{self.unit}s"

    def is_due(self, unit: str, done: int) -> bool:
        """Whether a checkpoint is due after `done` epochs or steps."""
        return unit == self.unit and done % self.count == 0
