"""Schedules of the learning rate and the damping: one value per step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Union

from model_zoo.common.errors import RecipeError
from model_zoo.common.schema import integer, list_of, number, one_of, optional, setting
from model_zoo.common.values import float32_fault


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training run.

    Attributes:
        step: completed steps; may be fractional.
        steps_per_epoch: steps per epoch; fractional if a step may span two epochs.
        epochs: total epochs of the run.
    """

    step: float
    steps_per_epoch: float
    epochs: int

    @property
    def epoch(self) -> float:
        """Completed epochs, with fraction."""
        return self.step / self.steps_per_epoch


@dataclass(frozen=True)
class Constant:
    """A constant value."""

    name: str = setting(one_of(["constant"]), "constant")

    def factor(self, progress: TrainingProgress) -> float:
        """The multiplier of the base value."""
        return 1.0


@dataclass(frozen=True)
class Step:
    """Multiplies the value by `gamma` at the start of each of `milestones` (0 is the first epoch or step).

    Attributes:
        name: "step".
        milestones: the epochs or steps.
        gamma: the multiplier.
        unit: the unit of `milestones`.
    """

    name: str = setting(one_of(["step"]), "step")
    milestones: tuple[int, ...] = setting(list_of(integer(1), "a list of epochs or steps of at least 1"), ())
    gamma: float = setting(number(above=0, most=1), 0.1)
    unit: str = setting(one_of(["epochs", "steps"]), "epochs")

    def factor(self, progress: TrainingProgress) -> float:
        """The multiplier of the base value."""
        done = progress.epoch if self.unit == "epochs" else progress.step
        return self.gamma ** sum(done >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class Exponential:
    """Decays the value continuously by `gamma` per `every_epochs`: gamma^(epoch / every_epochs).

    Attributes:
        name: "exponential".
        gamma: the decay rate.
        every_epochs: the number of epochs for one decay by `gamma`.
    """

    name: str = setting(one_of(["exponential"]), "exponential")
    gamma: float = setting(number(above=0, most=1), 0.1)
    every_epochs: float = setting(number(above=0), 1.0)

    def factor(self, progress: TrainingProgress) -> float:
        """The multiplier of the base value."""
        return self.gamma ** (progress.epoch / self.every_epochs)


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up from zero over `warmup_epochs`, then half a cosine down to `final` times the base value.

    Attributes:
        name: "cosine".
        warmup_epochs: length of the warm-up.
        final: the multiplier at the end of training.
    """

    name: str = setting(one_of(["cosine"]), "cosine")
    warmup_epochs: float = setting(number(least=0), 0.0)
    final: float = setting(number(least=0, most=1), 0.0)

    def factor(self, progress: TrainingProgress) -> float:
        """The multiplier of the base value."""
        if progress.epoch < self.warmup_epochs:
            return progress.epoch / self.warmup_epochs
        done = (progress.epoch - self.warmup_epochs) / max(progress.epochs - self.warmup_epochs, 1e-12)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True)
class Polynomial:
    """Decays from the base value to `final` times it: (1 - completed fraction of the decay)^`power`.

    Attributes:
        name: "polynomial".
        power: the exponent.
        final: the multiplier at the end of the decay.
        from_epoch: the epoch at which the decay starts.
        until_epoch: the epoch at which it ends, possibly after the end of training; null for the end of
            training.
    """

    name: str = setting(one_of(["polynomial"]), "polynomial")
    power: float = setting(number(above=0), 1.0)
    final: float = setting(number(least=0, most=1), 0.0)
    from_epoch: float = setting(number(least=0), 0.0)
    until_epoch: float | None = setting(optional(number(above=0)), None)

    def factor(self, progress: TrainingProgress) -> float:
        """The multiplier of the base value."""
        until = progress.epochs if self.until_epoch is None else self.until_epoch
        done = (progress.epoch - self.from_epoch) / max(until - self.from_epoch, 1e-12)
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
    """Checks that a schedule does not reach zero before the end of training.

    Args:
        path: dotted path of the schedule's section.
        schedule: the schedule.
        epochs: the number of epochs.

    Raises:
        RecipeError: the schedule reaches zero earlier.
    """
    if not isinstance(schedule, Polynomial) or schedule.until_epoch is None:
        return
    if schedule.until_epoch < epochs and schedule.final == 0:
        raise RecipeError(
            f"{path}.until_epoch is {schedule.until_epoch!r}; accepted with {path}.final 0: null or at least "
            f"epochs, which is {epochs}."
        )


def check_end(path: str, schedule: Schedule, base: float, epochs: int) -> None:
    """Checks that a schedule by powers of gamma stays positive in float32, as a damping must.

    Args:
        path: dotted path of the schedule's section.
        schedule: the schedule.
        base: the value that it scales.
        epochs: the number of epochs.

    Raises:
        RecipeError: the value at the end of training is 0 in float32.
    """
    if not isinstance(schedule, (Exponential, Step)):
        return
    end = base * schedule.factor(TrainingProgress(float(epochs), 1.0, epochs))
    if end == 0.0 or float32_fault(end):
        raise RecipeError(
            f"{path}.gamma is {schedule.gamma!r}, which ends at {end:g}, 0 in float32; accepted: a number "
            "that ends above 1.2e-38."
        )


def step_values(
    schedule: Schedule, base: float, epochs: int, batches_per_epoch: int, batches_per_step: int = 1
) -> float | list[float]:
    """The learning rate or the damping of every step.

    A step uses the schedule's value at its midpoint. So neither a warm-up nor a decay to zero spends a step
    at exactly zero.

    Args:
        schedule: the schedule.
        base: the value that it scales.
        epochs: the number of epochs.
        batches_per_epoch: the number of batches in each.
        batches_per_step: how many batches form one step of the optimizer; a step may span two epochs.
            Default: 1.

    Returns:
        One number for a constant schedule, otherwise a list with one number per step.
    """
    if isinstance(schedule, Constant):
        return base
    per_epoch = batches_per_epoch / batches_per_step
    steps = range(epochs * batches_per_epoch // batches_per_step)
    return [base * schedule.factor(TrainingProgress(step + 0.5, per_epoch, epochs)) for step in steps]
