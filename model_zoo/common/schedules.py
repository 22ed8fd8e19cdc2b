"""Schedules of the learning rate and of the damping, as one number a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Union

from model_zoo.common.errors import RecipeError
from model_zoo.common.schema import integer, list_of, number, one_of, optional, setting


@dataclass(frozen=True)
class Moment:
    """A point of a training run.

    Attributes:
        step: steps done; a half is the middle of a step.
        steps_per_epoch: steps of an epoch; no whole number where a step may go over its end.
        epochs: epochs of the run.
    """

    step: float
    steps_per_epoch: float
    epochs: int

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.step / self.steps_per_epoch


@dataclass(frozen=True)
class Constant:
    """The same value throughout."""

    name: str = setting(one_of(["constant"]), "constant")

    def factor(self, moment: Moment) -> float:
        """The share of the base value at a moment."""
        return 1.0


@dataclass(frozen=True)
class Step:
    """The value is multiplied by `gamma` at the start of each of `milestones` (0 is the first epoch or step).

    Attributes:
        name: "step".
        milestones: when.
        gamma: by what.
        unit: what `milestones` count.
    """

    name: str = setting(one_of(["step"]), "step")
    milestones: tuple[int, ...] = setting(list_of(integer(1), "a list of epochs or steps of at least 1"), ())
    gamma: float = setting(number(above=0, most=1), 0.1)
    unit: str = setting(one_of(["epochs", "steps"]), "epochs")

    def factor(self, moment: Moment) -> float:
        """The share of the base value at a moment."""
        done = moment.epoch if self.unit == "epochs" else moment.step
        return self.gamma ** sum(done >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class Exponential:
    """The value falls by `gamma` in every `every_epochs`, without leaps: gamma^(epoch / every_epochs).

    Attributes:
        name: "exponential".
        gamma: by what.
        every_epochs: in how many epochs.
    """

    name: str = setting(one_of(["exponential"]), "exponential")
    gamma: float = setting(number(above=0, most=1), 0.1)
    every_epochs: float = setting(number(above=0), 1.0)

    def factor(self, moment: Moment) -> float:
        """The share of the base value at a moment."""
        return self.gamma ** (moment.epoch / self.every_epochs)


@dataclass(frozen=True)
class Cosine:
    """Up from zero in a line for `warmup_epochs`, then half a cosine to `final` times the base value.

    Attributes:
        name: "cosine".
        warmup_epochs: epochs of the line.
        final: the share at the end of training.
    """

    name: str = setting(one_of(["cosine"]), "cosine")
    warmup_epochs: float = setting(number(least=0), 0.0)
    final: float = setting(number(least=0, most=1), 0.0)

    def factor(self, moment: Moment) -> float:
        """The share of the base value at a moment."""
        if moment.epoch < self.warmup_epochs:
            return moment.epoch / self.warmup_epochs
        done = (moment.epoch - self.warmup_epochs) / max(moment.epochs - self.warmup_epochs, 1e-12)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True)
class Polynomial:
    """From the base value to `final` times it, as (1 - share of the way done) to the power of `power`.

    Attributes:
        name: "polynomial".
        power: of the share that is left.
        final: the share of the base value at the end of the way.
        from_epoch: where the way begins.
        until_epoch: where it ends; null for the end of training. It may lie behind the end of training.
    """

    name: str = setting(one_of(["polynomial"]), "polynomial")
    power: float = setting(number(above=0), 1.0)
    final: float = setting(number(least=0, most=1), 0.0)
    from_epoch: float = setting(number(least=0), 0.0)
    until_epoch: float | None = setting(optional(number(above=0)), None)

    def factor(self, moment: Moment) -> float:
        """The share of the base value at a moment."""
        until = moment.epochs if self.until_epoch is None else self.until_epoch
        done = (moment.epoch - self.from_epoch) / max(until - self.from_epoch, 1e-12)
        return self.final + (1 - self.final) * (1 - min(max(done, 0.0), 1.0)) ** self.power


Schedule = Union[Constant, Step, Exponential, Cosine, Polynomial]
SCHEDULES = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "cosine": Cosine,
    "polynomial": Polynomial,
}


def check_schedule(path: str, schedule: Schedule, epochs: int) -> None:
    """Makes sure that a schedule reaches zero, if at all, at the end of training.

    Args:
        path: dotted name of the schedule's section.
        schedule: the schedule.
        epochs: the number of epochs.

    Raises:
        RecipeError: it would be zero before.
    """
    if not isinstance(schedule, Polynomial) or schedule.until_epoch is None:
        return
    if schedule.until_epoch < epochs and schedule.final == 0:
        raise RecipeError(
            f"{path}.until_epoch is {schedule.until_epoch!r}; accepted with {path}.final 0: null or at least "
            f"epochs, which is {epochs}."
        )


def step_values(
    schedule: Schedule, base: float, epochs: int, batches_per_epoch: int, batches_per_step: int = 1
) -> float | list[float]:
    """The learning rate, or the damping, of every step.

    A step's value is the schedule's in the middle of the step, so that neither a warm-up nor a decay to zero
    spends a step at a value of exactly zero.

    Args:
        schedule: the schedule.
        base: the value that it scales.
        epochs: the number of epochs.
        batches_per_epoch: the number of batches in each.
        batches_per_step: how many make one step of the optimizer; the last of an epoch may go into a step of
            the next. Default: 1.

    Returns:
        One number for a constant schedule, otherwise a list with one for each step.
    """
    if isinstance(schedule, Constant):
        return base
    per_epoch = batches_per_epoch / batches_per_step
    steps = range(epochs * batches_per_epoch // batches_per_step)
    return [base * schedule.factor(Moment(step + 0.5, per_epoch, epochs)) for step in steps]
