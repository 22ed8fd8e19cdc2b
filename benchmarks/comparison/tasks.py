"""The tasks: recipe, methods, data that is held out, budgets, and the levels of the table by the clock."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison.budget import COSINE, ONE_CYCLE, Budget, Schedule
from benchmarks.comparison.grid import AUTOENCODER, CONVNET, GPT, RESNET20, VIT, Method
from model_zoo.common.recipe import apply_override
from model_zoo.common.yaml_text import read_yaml

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "comparison"
# Places in an entry of a curve, whose first number is the step.
LOSS, METRIC, TRAIN_LOSS, TRAIN_METRIC = 1, 2, 3, 4
# Sections of a recipe that a run does not use, or that have a column of their own.
_NOT_IN_SETUP = ("seed", "epochs", "schedule", "evaluate")


@dataclass(frozen=True)
class Level:
    """A level of a curve; the table has the seconds until a run reaches it.

    Attributes:
        name: the head of its column.
        place: which number of a curve's entries, such as METRIC.
        value: the level, in the units of the curve. None if `of` gives it.
        of: a method whose median over the seeds is the level.
        best: whether it is that method's best value, instead of its last one.
    """

    name: str
    place: int
    value: float | None = None
    of: str = ""
    best: bool = False


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        recipe: path of its recipes, without the last word of their names.
        methods: the methods by name.
        budget: how long a trial trains.
        final_budgets: how long the best points train; each in turn.
        levels: the columns of the table by the clock.
        default_methods: the methods that are compared if the command names none. Empty for all.
        settings: overrides of the recipes.
        held_out: how many of the last training images the trials are evaluated on and do not train on. 0 if
            trials use the test split, as the texts and the digits do, which have nothing to spare.
        train_images: how many training images final runs are evaluated on as well.
        schedule: the learning rate over a run.
        metric: the metric of its network.
        as_error: whether tables show an accuracy as the error.
        selected_by: what selects the best point, METRIC or LOSS.
        reference: the method whose seconds are 1 in the table by the clock.
        evaluations: evaluations per trial.
        final_evaluations: evaluations per final run.
    """

    recipe: str
    methods: Mapping[str, Method]
    budget: Budget
    final_budgets: tuple[Budget, ...]
    levels: tuple[Level, ...]
    default_methods: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    held_out: int = 0
    train_images: int = 0
    schedule: Schedule = COSINE
    metric: str = "accuracy"
    as_error: bool = False
    selected_by: int = METRIC
    reference: str = "sgdm"
    evaluations: int = 4
    final_evaluations: int = 20

    @property
    def trial_split(self) -> str:
        """What trials are evaluated on."""
        return "validation" if self.held_out else "test"

    @property
    def compared(self) -> list[str]:
        """The methods that are compared by default."""
        return list(self.default_methods or self.methods)


def _errors(place: int, split: str, *percents: float) -> tuple[Level, ...]:
    return tuple(Level(f"{split} error {percent:g} %", place, 1 - percent / 100) for percent in percents)


def _accuracies(*percents: float) -> tuple[Level, ...]:
    return tuple(Level(f"test accuracy {percent:g} %", METRIC, percent / 100) for percent in percents)


_transformer = functools.partial(
    Task,
    levels=(Level("AdamW's last loss", LOSS, of="adamw"),),
    default_methods=("adamw", "sgdm", "kfac", "kfac-reduce", "ekfac", "skfac"),
    reference="adamw",
)
# The first two tasks, which hold nothing out. Other numbers would make their committed runs useless. Those
# of the GPT have these options: --set network.depth=2 --budget 60s --final-budgets 120s --evaluations 6
# --final-evaluations 6.
_without_held_out = functools.partial(_transformer, selected_by=LOSS, evaluations=10, final_evaluations=10)

TASKS = {
    "gpt_stdlib": _without_held_out(
        "model_zoo/gpt/gpt_stdlib",
        GPT,
        budget=Budget(120),
        final_budgets=(Budget(600),),
        settings=("data.evaluation_windows=1024",),
        metric="bits_per_byte",
    ),
    "vit_digits": _without_held_out(
        "model_zoo/vit/vit_digits",
        VIT,
        budget=Budget(60),
        final_budgets=(Budget(120),),
        levels=(
            *(Level(f"test loss {value:g}", LOSS, value) for value in (0.3, 0.1)),
            Level("AdamW's last loss", LOSS, of="adamw"),
        ),
    ),
    "vit_cifar10": _transformer(
        "model_zoo/vit/vit_cifar10", VIT, budget=Budget(600), final_budgets=(Budget(3600),), held_out=5000
    ),
    # Grosse and Martens 2016: seconds to errors.
    "convnet_cifar10": Task(
        "model_zoo/convnet/convnet_cifar10",
        CONVNET,
        Budget(240),
        (Budget(240), Budget(960)),
        (
            *_errors(METRIC, "test", 30, 25, 22, 20, 19),
            Level("SGDM's best test error", METRIC, of="sgdm", best=True),
            *_errors(TRAIN_METRIC, "training", 20, 10, 6),
        ),
        held_out=5000,
        train_images=10_000,
        as_error=True,
        final_evaluations=24,
    ),
    "autoencoder_mnist": Task(
        "model_zoo/autoencoder/autoencoder_mnist",
        AUTOENCODER,
        Budget(5, "epochs"),
        # SGD does better in the time for which it was tuned.
        (Budget(20, "epochs"), Budget(5, "epochs")),
        (
            Level("SGDM's best test error", METRIC, of="sgdm", best=True),
            Level("Adam's best test error", METRIC, of="adam", best=True),
            Level("SGDM's best training error", TRAIN_METRIC, of="sgdm", best=True),
            Level("Adam's best training error", TRAIN_METRIC, of="adam", best=True),
        ),
        held_out=5000,
        train_images=10_000,
        metric="reconstruction_error",
        final_evaluations=40,
    ),
    # Liu, Gao and Wang 2021, table 2, in 10 epochs instead of 100; the second budget is for methods that need
    # fewer.
    "resnet20_cifar10": Task(
        "model_zoo/resnet/resnet20_cifar10",
        RESNET20,
        Budget(3, "epochs"),
        (Budget(10, "epochs"), Budget(6, "epochs")),
        (*_accuracies(80, 85, 88, 90, 91), Level("SGDM's last accuracy", METRIC, of="sgdm")),
        held_out=5000,
        schedule=ONE_CYCLE,
        evaluations=3,
        final_evaluations=20,
    ),
}


def check_methods(task: str, text: str) -> list[str]:
    """Reads names of methods that are separated by commas.

    Args:
        task: the task.
        text: the names; empty for the task's default.

    Returns:
        The names.

    Raises:
        ValueError: the task has no such method.
    """
    names = text.split(",") if text else TASKS[task].compared
    for name in names:
        if name not in TASKS[task].methods:
            raise ValueError(
                f"--methods: must be of {', '.join(TASKS[task].methods)} with --task {task}, got {name}"
            )
    return names


def recipe_of(task: str, method: str) -> Path:
    """The file of the recipe that a method's runs start from."""
    chosen = TASKS[task]
    return ROOT / f"{chosen.recipe}_{chosen.methods[method].recipe}.yaml"


def settings_of(task: str, method: str, others: Sequence[str]) -> list[str]:
    """The overrides of a method's recipe.

    Args:
        task: the task.
        method: the method.
        others: overrides of the command line, and of a point.

    Returns:
        Overrides as ``KEY=VALUE``.
    """
    return [*TASKS[task].methods[method].settings, *TASKS[task].settings, *others]


@functools.lru_cache
def _content(text: str) -> dict[str, Any]:
    """The content of a recipe. A command asks for it hundreds of times, and YAML is slow to read."""
    return dict(read_yaml(text))


def setup_of(task: str, method: str, others: Sequence[str], *, tuned: bool = True) -> str:
    """A checksum of what a run trains: its recipe with all overrides, its schedule, and what is held out.

    It identifies a run in the log, so that no run counts after its recipe or its settings have changed.

    Args:
        task: the task.
        method: the method.
        others: overrides of the command line, and of a point.
        tuned: whether the values that the method's grid tunes count. They don't change the time of a step.
            Default: True.

    Returns:
        Twelve characters.
    """
    content = copy.deepcopy(_content(recipe_of(task, method).read_text(encoding="utf-8")))
    for setting in settings_of(task, method, others):
        apply_override(content, setting)
    chosen = TASKS[task]
    for key in () if tuned else chosen.methods[method].grid:
        section, name = key.split(".")
        content[section].pop(name, None)
    kept = {key: value for key, value in content.items() if key not in _NOT_IN_SETUP}
    described = [kept, chosen.schedule.name, chosen.held_out, chosen.train_images]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]
