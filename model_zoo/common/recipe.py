"""Recipes: the network, data and optimizer of a run, read from YAML and validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_zoo.common.errors import RecipeError
from model_zoo.common.methods import METHODS
from model_zoo.common.options.data import DATA, DataOptions, EncodedImages, TextWindows
from model_zoo.common.options.networks import (
    DATA_OF_NETWORK,
    METRIC_OF_NETWORK,
    NETWORKS,
    SIDE_OF_NETWORK,
    GPTOptions,
    NetworkOptions,
)
from model_zoo.common.options.optimizers import (
    OPTIMIZERS,
    OptimizerOptions,
    SecondOrderOptions,
)
from model_zoo.common.options.parallel import ParallelOptions
from model_zoo.common.options.precision import PrecisionOptions
from model_zoo.common.schedules import SCHEDULES, Constant, Schedule, check_end, check_schedule
from model_zoo.common.schema import (
    Section,
    Variant,
    integer,
    list_of,
    number,
    one_of,
    read_section,
    setting,
)
from model_zoo.common.values import shown
from model_zoo.common.yaml_text import read_yaml


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        network: the network and its options.
        data: the data set, its batching and augmentation.
        optimizer: the optimizer and its hyper-parameters.
        epochs: number of epochs.
        schedule: the learning-rate schedule.
        label_smoothing: the fraction of a label's probability that is spread over all classes in training.
        seed: seed of the initial weights, the order of the images and the augmentation.
        mode: MindSpore's execution mode.
        evaluate: the splits to evaluate after each epoch, both without augmentation.
        parallel: options of a distributed run.
        precision: the data type of the layers and the loss scale.
        accumulation_steps: batches whose gradients and statistics form one step of the optimizer.
    """

    # RUF009: `setting` makes a dataclasses.field.
    network: NetworkOptions = setting(Variant(NETWORKS))  # noqa: RUF009
    data: DataOptions = setting(Variant(DATA))  # noqa: RUF009
    optimizer: OptimizerOptions = setting(Variant(OPTIMIZERS))  # noqa: RUF009
    epochs: int = setting(integer(1))
    schedule: Schedule = setting(Variant(SCHEDULES), Constant())  # noqa: RUF009
    label_smoothing: float = setting(number(least=0, below=1), 0.0)
    seed: int = setting(integer(0), 1)
    mode: str = setting(one_of(["graph", "pynative"]), "graph")
    evaluate: tuple[str, ...] = setting(
        list_of(one_of(["train", "test"]), "a list of train and test"), ("test",)
    )
    parallel: ParallelOptions = setting(Section(ParallelOptions), ParallelOptions())  # noqa: RUF009
    precision: PrecisionOptions = setting(Section(PrecisionOptions), PrecisionOptions())  # noqa: RUF009
    accumulation_steps: int = setting(integer(1), 1)


def parse_recipe(content: object) -> Recipe:
    """Validates the content of a recipe.

    Args:
        content: the parsed YAML.

    Returns:
        The recipe.

    Raises:
        RecipeError: a key is unknown or missing, or a value is not accepted.
    """
    recipe = read_section(Recipe, content, "")
    takes = DATA_OF_NETWORK[recipe.network.name]
    if recipe.data.name not in takes:
        raise RecipeError(
            f"data.name is {recipe.data.name!r}; "
            f"accepted with network.name {recipe.network.name!r}: {' or '.join(takes)}."
        )
    side = SIDE_OF_NETWORK.get(recipe.network.name)
    if isinstance(recipe.data, EncodedImages) and side not in (None, recipe.data.image_size):
        raise RecipeError(
            f"data.image_size is {recipe.data.image_size!r}; "
            f"accepted with network.name {recipe.network.name!r}: {side}."
        )
    if (
        isinstance(recipe.network, GPTOptions)
        and isinstance(recipe.data, TextWindows)
        and recipe.data.window > recipe.network.context
    ):
        raise RecipeError(
            f"data.window is {recipe.data.window!r}; accepted: an integer of at most network.context, which "
            f"is {recipe.network.context}."
        )
    if recipe.label_smoothing and METRIC_OF_NETWORK[recipe.network.name] == "reconstruction_error":
        raise RecipeError(
            f"label_smoothing is {recipe.label_smoothing!r}; accepted with network.name "
            f"{recipe.network.name!r}, which has no labels: 0."
        )
    check_schedule("schedule", recipe.schedule, recipe.epochs)
    if isinstance(recipe.optimizer, SecondOrderOptions):
        damping = recipe.optimizer.damping_schedule
        check_schedule("optimizer.damping_schedule", damping, recipe.epochs)
        check_end("optimizer.damping_schedule", damping, recipe.optimizer.damping, recipe.epochs)
    return recipe


def check_distributed(recipe: Recipe, device: str) -> None:
    """Checks that several processes can train a recipe together.

    Args:
        recipe: the recipe.
        device: "CPU", "GPU" or "Ascend".

    Raises:
        RecipeError: the optimizer does not support several processes, or the device lacks a collective.
    """
    optimizer = recipe.optimizer
    alone = [name for name, method in METHODS.items() if method.single_device]
    if optimizer.name in alone:
        others = ", ".join(name for name in OPTIMIZERS if name not in alone)
        raise RecipeError(
            f"optimizer.name is {optimizer.name!r}; accepted with --distributed: one of {others}."
        )
    for name, option in METHODS[optimizer.name].options.items() if optimizer.name in METHODS else ():
        value = getattr(optimizer, name)
        if value in option.single_device:
            others = " or ".join(word for word in option.choices if word not in option.single_device)
            raise RecipeError(f"optimizer.{name} is {value!r}; accepted with --distributed: {others}.")
    if recipe.parallel.collective == "reduce_scatter" and device == "CPU":
        raise RecipeError(
            "parallel.collective is 'reduce_scatter', which MindSpore does not support on CPU; accepted "
            "there: auto or all_reduce."
        )


def apply_override(content: dict[str, Any], override: str) -> None:
    """Applies one `dotted.key=value` override from the command line.

    Args:
        content: the parsed YAML; changed in place.
        override: the text after --set; its value is read as YAML.

    Raises:
        RecipeError: the text has no "=", its value is not YAML, or its key is inside a value that is not a
            mapping.
    """
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {shown(override)}: must have the form dotted.key=value.")
    section = content
    for depth, key in enumerate(keys[:-1], start=1):
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise RecipeError(
                f"--set {shown(override)}: {'.'.join(keys[:depth])} is {shown(section)}, which is not a "
                "mapping."
            )
    try:
        section[keys[-1]] = read_yaml(value)
    except RecipeError as error:
        raise RecipeError(f"--set {shown(override)}: {shown(value)} {error}") from None


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file and applies the overrides of the command line.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value` texts.

    Returns:
        The recipe.

    Raises:
        RecipeError: the file can't be read, or the recipe or an override is not accepted.
    """
    try:
        if path.exists() and not path.is_file():
            raise RecipeError(f"recipe {path} is not a regular file.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"recipe {path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RecipeError(f"recipe {path} is not text in UTF-8: line {line}, {error.reason}.") from None
    try:
        content = read_yaml(text)
    except RecipeError as error:
        raise RecipeError(f"recipe {path} {error}") from None
    if not isinstance(content, Mapping):
        raise RecipeError(f"recipe {path} is not a mapping.")
    content = dict(content)
    try:
        for override in overrides:
            apply_override(content, override)
        return parse_recipe(content)
    except RecipeError as error:
        raise RecipeError(f"recipe {path}: {error}") from error


def sibling_recipe(path: Path, optimizer: str) -> Path:
    """Finds the recipe of another optimizer for the same network and data, by the last word of the file name.

    The last word is an optimizer, optionally with a variant: resnet20w4_cifar10_tkfac-new.yaml.

    Args:
        path: a recipe such as resnet20_digits_kfac.yaml.
        optimizer: a key of OPTIMIZERS, such as "sgdm", optionally with a variant, such as "tkfac-new".

    Returns:
        The path of the sibling_recipe, such as resnet20_digits_sgdm.yaml.

    Raises:
        RecipeError: the optimizer is unknown, the file name does not end in an optimizer, or the sibling does
            not exist.
    """
    if optimizer.partition("-")[0] not in OPTIMIZERS:
        raise RecipeError(f"--compare names {optimizer!r}; accepted: {', '.join(OPTIMIZERS)}.")
    stem, _, last = path.stem.rpartition("_")
    if last.partition("-")[0] not in OPTIMIZERS:
        raise RecipeError(
            f"--compare needs a recipe whose name ends in an optimizer, such as _kfac; got {path.name}."
        )
    result = path.with_name(f"{stem}_{optimizer}{path.suffix}")
    if not result.is_file():
        raise RecipeError(f"--compare {optimizer} needs the recipe {result}, which does not exist.")
    return result
