"""The network section of a recipe: which network, and its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from model_zoo.common.schema import integer, one_of, setting


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


NetworkOptions = Union[ResNetOptions, AutoEncoderOptions, MLPOptions]
NETWORKS = {"resnet": ResNetOptions, "autoencoder": AutoEncoderOptions, "mlp": MLPOptions}

# The first layer's inputs decide what a network can learn from.
DATA_OF_NETWORK = {"resnet": ("digits", "cifar10"), "autoencoder": ("mnist",), "mlp": ("mnist14",)}
