"""Learning-rate schedules as one number a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Union

from model_zoo.common.schema import integer, list_of, number, one_of, setting


@dataclass(frozen=True)
class Constant:
    """The same rate throughout."""

    name: str = setting(one_of(["constant"]), "constant")

    def factor(self, progress: float, epochs: int) -> float:
        """The share of the base rate when `progress` epochs of `epochs` are done."""
        return 1.0


@dataclass(frozen=True)
class Step:
    """The rate is multiplied by `gamma` at the start of each epoch of `milestones` (0 is the first)."""

    name: str = setting(one_of(["step"]), "step")
    milestones: tuple[int, ...] = setting(list_of(integer(1), "a list of epochs of at least 1"), ())
    gamma: float = setting(number(above=0, most=1), 0.1)

    def factor(self, progress: float, epochs: int) -> float:
        """The share of the base rate when `progress` epochs of `epochs` are done."""
        return self.gamma ** sum(progress >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class Cosine:
    """Up from zero in a line for `warmup_epochs`, then half a cosine to `final` times the base rate."""

    name: str = setting(one_of(["cosine"]), "cosine")
    warmup_epochs: float = setting(number(least=0), 0.0)
    final: float = setting(number(least=0, most=1), 0.0)

    def factor(self, progress: float, epochs: int) -> float:
        """The share of the base rate when `progress` epochs of `epochs` are done."""
        if progress < self.warmup_epochs:
            return progress / self.warmup_epochs
        done = (progress - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-12)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True)
class Polynomial:
    """From the base rate to `final` times it, as (1 - share of training done) to the power of `power`."""

    name: str = setting(one_of(["polynomial"]), "polynomial")
    power: float = setting(number(above=0), 1.0)
    final: float = setting(number(least=0, most=1), 0.0)

    def factor(self, progress: float, epochs: int) -> float:
        """The share of the base rate when `progress` epochs of `epochs` are done."""
        return self.final + (1 - self.final) * (1 - min(progress / epochs, 1.0)) ** self.power


Schedule = Union[Constant, Step, Cosine, Polynomial]
SCHEDULES = {"constant": Constant, "step": Step, "cosine": Cosine, "polynomial": Polynomial}


def learning_rates(schedule: Schedule, base: float, epochs: int, steps_per_epoch: int) -> float | list[float]:
    """The learning rate of every step.

    A step's rate is the schedule's in the middle of the step, so that neither a warm-up nor a decay to zero
    spends a step at a rate of exactly zero.

    Args:
        schedule: the schedule.
        base: the rate that it scales.
        epochs: the number of epochs.
        steps_per_epoch: the number of steps in each.

    Returns:
        One number for a constant schedule, otherwise a list of epochs * steps_per_epoch numbers.
    """
    if isinstance(schedule, Constant):
        return base
    steps = range(epochs * steps_per_epoch)
    return [base * schedule.factor((step + 0.5) / steps_per_epoch, epochs) for step in steps]
