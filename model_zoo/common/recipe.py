"""Recipes: which network learns which data with which optimizer, read from YAML and checked at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import yaml

from model_zoo.common.errors import RecipeError
from model_zoo.common.schedules import SCHEDULES, Constant, Schedule
from model_zoo.common.schema import (
    Variant,
    boolean,
    integer,
    list_of,
    number,
    one_of,
    optional,
    pattern,
    read_section,
    setting,
)

_MOMENTUM = number(least=0, below=1)
_POSITIVE = number(above=0)
_NOT_NEGATIVE = number(least=0)


def _is_resnet_depth(value: object) -> int:
    depth: int = integer(8).convert(value)
    if depth % 6 != 2:
        raise ValueError
    return depth


@dataclass(frozen=True)
class ResNetOptions:
    """A CIFAR-form residual network; see model_zoo/resnet/network.py."""

    name: str = setting(one_of(["resnet"]))
    depth: int = setting(
        type(integer(8))("a whole number 6n+2 of at least 8, as 20 or 32", _is_resnet_depth), 20
    )
    width: int = setting(integer(1), 1)
    shortcut: str = setting(one_of(["identity", "projection"]), "identity")


@dataclass(frozen=True)
class AutoEncoderOptions:
    """The 784-1000-500-250-30 auto-encoder; see model_zoo/autoencoder/network.py."""

    name: str = setting(one_of(["autoencoder"]))
    nonlinearity: str = setting(one_of(["relu", "tanh", "sigmoid"]), "relu")


@dataclass(frozen=True)
class MLPOptions:
    """The 196-20-20-20-10 classifier; see model_zoo/mlp/network.py."""

    name: str = setting(one_of(["mlp"]))
    nonlinearity: str = setting(one_of(["relu", "tanh", "sigmoid"]), "tanh")


@dataclass(frozen=True)
class ColourImages:
    """32x32 RGB images with augmentation: "digits" (embedded) or "cifar10"."""

    name: str = setting(one_of(["digits", "cifar10"]))
    batch_size: int = setting(integer(1))
    evaluation_batch_size: int = setting(integer(1), 100)
    crop_padding: int = setting(integer(0), 4)
    flip: bool = setting(boolean, True)


@dataclass(frozen=True)
class PixelVectors:
    """Grey images as flat vectors: "mnist" (784 pixels in [0, 1]) or "mnist14" (196 normalised pixels)."""

    name: str = setting(one_of(["mnist", "mnist14"]))
    batch_size: int = setting(integer(1))
    evaluation_batch_size: int = setting(integer(1), 500)


@dataclass(frozen=True)
class SGDMOptions:
    """mindspore.nn.Momentum, heavy ball: on CPU MindSpore 2.10 takes its use_nesterov and ignores it."""

    name: str = setting(one_of(["sgdm"]))
    learning_rate: float = setting(_POSITIVE)
    momentum: float = setting(_MOMENTUM, 0.9)
    weight_decay: float = setting(_NOT_NEGATIVE, 0.0)


@dataclass(frozen=True)
class AdamOptions:
    """mindspore.nn.Adam."""

    name: str = setting(one_of(["adam"]))
    learning_rate: float = setting(_POSITIVE)
    beta1: float = setting(number(above=0, below=1), 0.9)
    beta2: float = setting(number(above=0, below=1), 0.999)
    eps: float = setting(_POSITIVE, 1e-8)
    weight_decay: float = setting(_NOT_NEGATIVE, 0.0)


@dataclass(frozen=True)
class SecondOrderOptions:
    """What all optimizers of ms_kfac take; the documentation of ms_kfac.KFAC says what each of these is."""

    name: str = setting(one_of(["kfac", "tkfac", "smkfac", "skfac", "ekfac", "spngd", "thor"]))
    learning_rate: float = setting(_POSITIVE)
    momentum: float = setting(_MOMENTUM, 0.9)
    nesterov: bool = setting(boolean, False)
    weight_decay: float = setting(_NOT_NEGATIVE, 0.0)
    decoupled_weight_decay: bool = setting(boolean, False)
    damping: float = setting(_POSITIVE, 1e-3)
    factor_decay: float = setting(number(least=0, below=1), 0.95)
    factor_interval: int = setting(integer(1), 10)
    inverse_interval: int = setting(integer(1), 100)
    kl_clip: float | None = setting(optional(_POSITIVE), 1e-3)
    sharing: str = setting(one_of(["expand", "reduce"]), "expand")
    normalization: str = setting(one_of(["first_order", "unit_wise"]), "first_order")
    averaging: float | None = setting(optional(number(least=0, below=1)), None)
    skip: tuple[str, ...] = setting(list_of(pattern, "a list of regular expressions on layer names"), ())


@dataclass(frozen=True)
class KFACOptions(SecondOrderOptions):
    """ms_kfac.KFAC."""


@dataclass(frozen=True)
class TKFACOptions(SecondOrderOptions):
    """ms_kfac.TKFAC."""

    damping_mode: str = setting(one_of(["normal", "automatic"]), "normal")
    nu: float = setting(_POSITIVE, 1.0)
    ema: str = setting(one_of(["partial_trace", "paper"]), "partial_trace")
    automatic_form: str = setting(one_of(["printed", "homogeneous"]), "printed")
    max_expansion: float = setting(number(least=1), 100.0)


@dataclass(frozen=True)
class SMKFACOptions(SecondOrderOptions):
    """ms_kfac.SMKFAC."""

    full_refreshes: int = setting(integer(1), 10)
    alpha: float = setting(_POSITIVE, 0.1)
    beta: float = setting(_POSITIVE, 0.1)
    rescale: str = setting(one_of(["none", "trace"]), "none")
    full_refresh_interval: int | None = setting(optional(integer(1)), None)


@dataclass(frozen=True)
class SKFACOptions(SecondOrderOptions):
    """ms_kfac.SKFAC."""

    spatial: str = setting(one_of(["sum", "mean", "subsample"]), "sum")
    samples: int = setting(integer(1), 4)
    damping_split: str = setting(one_of(["none", "pi"]), "none")


@dataclass(frozen=True)
class EKFACOptions(SecondOrderOptions):
    """ms_kfac.EKFAC."""


@dataclass(frozen=True)
class SPNGDOptions(SecondOrderOptions):
    """ms_kfac.SPNGD, whose intervals follow the statistics unless they are given."""

    factor_decay: float = setting(number(least=0, below=1), 0.0)
    factor_interval: int | None = setting(optional(integer(1)), None)  # type: ignore[assignment]
    inverse_interval: int | None = setting(optional(integer(1)), None)  # type: ignore[assignment]
    normalization: str = setting(one_of(["first_order", "unit_wise"]), "unit_wise")
    similarity: float = setting(_POSITIVE, 0.1)


@dataclass(frozen=True)
class THOROptions(SecondOrderOptions):
    """ms_kfac.THOR."""

    omega1: float = setting(_NOT_NEGATIVE, 0.01)
    omega2: float = setting(_NOT_NEGATIVE, 0.0)
    split: int = setting(integer(1), 128)


NetworkOptions = Union[ResNetOptions, AutoEncoderOptions, MLPOptions]
DataOptions = Union[ColourImages, PixelVectors]
OptimizerOptions = Union[SGDMOptions, AdamOptions, SecondOrderOptions]

NETWORKS = {"resnet": ResNetOptions, "autoencoder": AutoEncoderOptions, "mlp": MLPOptions}
DATA = {"digits": ColourImages, "cifar10": ColourImages, "mnist": PixelVectors, "mnist14": PixelVectors}
OPTIMIZERS = {
    "sgdm": SGDMOptions,
    "adam": AdamOptions,
    "kfac": KFACOptions,
    "tkfac": TKFACOptions,
    "smkfac": SMKFACOptions,
    "skfac": SKFACOptions,
    "ekfac": EKFACOptions,
    "spngd": SPNGDOptions,
    "thor": THOROptions,
}

# The first layer's inputs decide what a network can learn from.
DATA_OF_NETWORK = {"resnet": ("digits", "cifar10"), "autoencoder": ("mnist",), "mlp": ("mnist14",)}


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        network: the network and its options.
        data: the data set, its batching and augmentation.
        optimizer: the optimizer and its hyper-parameters.
        epochs: passes over the training images.
        schedule: how the learning rate changes.
        seed: of the initial weights, the order of the images and the augmentation.
        mode: MindSpore's execution mode.
        evaluate: the splits to evaluate after each epoch, "train" too without augmentation.
    """

    # RUF009: `setting` makes a dataclasses.field.
    network: NetworkOptions = setting(Variant(NETWORKS))  # noqa: RUF009
    data: DataOptions = setting(Variant(DATA))  # noqa: RUF009
    optimizer: OptimizerOptions = setting(Variant(OPTIMIZERS))  # noqa: RUF009
    epochs: int = setting(integer(1))
    schedule: Schedule = setting(Variant(SCHEDULES), Constant())  # noqa: RUF009
    seed: int = setting(integer(0), 1)
    mode: str = setting(one_of(["graph", "pynative"]), "graph")
    evaluate: tuple[str, ...] = setting(
        list_of(one_of(["train", "test"]), "a list of train and test"), ("test",)
    )


def parse_recipe(content: object) -> Recipe:
    """Checks the content of a recipe.

    Args:
        content: what the YAML holds.

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
    return recipe


def apply_override(content: dict[str, Any], override: str) -> None:
    """Writes one `dotted.key=value` from the command line into the content of a recipe.

    Args:
        content: what the YAML holds; changed in place.
        override: the text after --set; its value is read as YAML.

    Raises:
        RecipeError: the text has no "=", its value is no YAML, or its key lies below what is no mapping.
    """
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {override!r} is not understood; accepted: dotted.key=value.")
    section = content
    for depth, key in enumerate(keys[:-1], start=1):
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise RecipeError(
                f"--set {override!r}: {'.'.join(keys[:depth])} is {section!r}, which has no keys."
            )
    try:
        section[keys[-1]] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set {override!r}: {value!r} can't be read as YAML.") from None


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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {path} can't be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, Mapping):
        raise RecipeError(f"recipe {path} is no mapping of keys to values.")
    content = dict(content)
    try:
        for override in overrides:
            apply_override(content, override)
        return parse_recipe(content)
    except RecipeError as error:
        raise RecipeError(f"recipe {path}: {error}") from error


def sibling(path: Path, optimizer: str) -> Path:
    """The recipe of the same network and data with another optimizer, by the last word of the file's name.

    Args:
        path: a recipe such as resnet20_digits_kfac.yaml.
        optimizer: a key of OPTIMIZERS, such as "sgdm".

    Returns:
        The path of the sibling, such as resnet20_digits_sgdm.yaml.

    Raises:
        RecipeError: the optimizer is unknown, the file's name does not end in one, or there is no such file.
    """
    if optimizer not in OPTIMIZERS:
        raise RecipeError(f"--compare names {optimizer!r}; accepted: {', '.join(OPTIMIZERS)}.")
    stem, _, last = path.stem.rpartition("_")
    if last not in OPTIMIZERS:
        raise RecipeError(
            f"--compare needs a recipe whose name ends in an optimizer, as _kfac, which {path.name} does not."
        )
    result = path.with_name(f"{stem}_{optimizer}{path.suffix}")
    if not result.is_file():
        raise RecipeError(f"--compare {optimizer} needs the recipe {result}, which does not exist.")
    return result
