"""How long a run trains, and its learning rate over that time."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """The length of a run.

    Attributes:
        amount: a number of seconds of an idle machine, or of epochs.
        unit: "s" or "epochs".
    """

    amount: float
    unit: str = "s"

    def __str__(self) -> str:
        """As in tables, such as 60 s."""
        return f"{self.amount:g} {self.unit}"

    @property
    def key(self) -> str:
        """As in the column of the log: seconds have no unit."""
        return f"{self.amount:g}" if self.unit == "s" else str(self)

    def steps(
        self, step_seconds: float, evaluations: int, epoch_steps: int, warm_up_seconds: float = 0.0
    ) -> int:
        """The number of steps of a run.

        Args:
            step_seconds: seconds per step on an idle machine.
            evaluations: the number of evaluations, which is the least number of steps.
            epoch_steps: steps per epoch.
            warm_up_seconds: what the first steps take in addition.

        Returns:
            The nearest number of steps.
        """
        exact = (
            (self.amount - warm_up_seconds) / step_seconds if self.unit == "s" else self.amount * epoch_steps
        )
        return max(round(exact), evaluations)


def read_budget(text: str) -> Budget:
    """Reads a budget such as 60s or 10epochs, for argparse."""
    for unit in ("epochs", "s"):
        if text.endswith(unit):
            try:
                amount = float(text[: -len(unit)])
            except ValueError:
                break
            if math.isfinite(amount) and amount > 0:
                return Budget(amount, unit)
    raise argparse.ArgumentTypeError(f"must be a positive number with s or epochs, such as 60s; got {text}")


def read_budgets(text: str) -> tuple[Budget, ...]:
    """Reads budgets that are separated by commas, for argparse."""
    budgets = tuple(map(read_budget, text.split(",")))
    if len({budget.unit for budget in budgets}) > 1:
        raise argparse.ArgumentTypeError(f"must be all in s or all in epochs, got {text}")
    return budgets


@dataclass(frozen=True)
class Schedule:
    """The multiplier of the learning rate: linear growth, then half a cosine down to zero.

    It follows the budget, so that every method ends its schedule when its time is over.

    Attributes:
        name: its name.
        warm_up: the share of a run in which the rate grows.
        least: the smallest multiplier in that share.
    """

    name: str
    warm_up: float
    least: float

    def factor(self, progress: float) -> float:
        """The multiplier of the learning rate.

        Args:
            progress: the share of the steps that are done.

        Returns:
            A number from 0 to 1.
        """
        if progress < self.warm_up:
            return max(progress / self.warm_up, self.least)
        done = min((progress - self.warm_up) / (1 - self.warm_up), 1.0)
        return 0.5 * (1 + math.cos(math.pi * done))


COSINE = Schedule("cosine", 0.05, 0.01)
# Smith and Topin 2017, with the shares of PyTorch's OneCycleLR. The momentum stays constant.
ONE_CYCLE = Schedule("one-cycle", 0.3, 0.04)
