"""The networks of the zoo by name."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import mindspore.nn as nn

from model_zoo.autoencoder.network import AutoEncoder
from model_zoo.common.options.networks import FIGURE_OF_NETWORK, NetworkOptions
from model_zoo.convnet.network import ConvNet
from model_zoo.mlp.network import MLP
from model_zoo.resnet.imagenet import ImageNetResNet
from model_zoo.resnet.network import ResNet
from model_zoo.vgg.network import VGG

NETWORKS: dict[str, Callable[..., nn.Cell]] = {
    "resnet": ResNet,
    "imagenet_resnet": ImageNetResNet,
    "vgg": VGG,
    "convnet": ConvNet,
    "autoencoder": AutoEncoder,
    "mlp": MLP,
}
# Names that hold a depth: the family's name in NETWORKS, and the depth.
DEPTHS = {
    **{f"resnet{depth}": ("resnet", depth) for depth in (20, 32, 44, 56, 110)},
    **{f"resnet{depth}": ("imagenet_resnet", depth) for depth in (18, 34, 50, 101, 152)},
    **{f"vgg{depth}": ("vgg", depth) for depth in (11, 13, 16, 19)},
}


def create_network(name: str, **options: Any) -> nn.Cell:
    """Builds a network.

    Args:
        name: a family, "resnet" (CIFAR form), "imagenet_resnet", "vgg", "convnet", "autoencoder" or "mlp"; or
            a family and a depth in one word, as "resnet20", "resnet50" or "vgg16", where 20, 32, 44, 56 and
            110 are of the CIFAR form and 18, 34, 50, 101 and 152 of the ImageNet form.
        **options: the arguments of its class, as `classes`, `width` and `shortcut`.

    Returns:
        The network with freshly drawn weights.

    Raises:
        ValueError: the name is unknown, or it holds a depth and `depth` is given too.
    """
    if name in DEPTHS:
        family, depth = DEPTHS[name]
        if "depth" in options:
            raise ValueError(f"depth can't be given with {name!r}, which has {depth}; {family!r} takes it")
        return NETWORKS[family](depth=depth, **options)
    if name not in NETWORKS:
        known = ", ".join([*NETWORKS, *DEPTHS])
        raise ValueError(f"there is no network {name!r}; there are {known}")
    return NETWORKS[name](**options)


def build_network(options: NetworkOptions, classes: int) -> nn.Cell:
    """Builds the network of a recipe.

    Args:
        options: the recipe's network section.
        classes: the number of classes in the data; an auto-encoder has none.

    Returns:
        The network with freshly drawn weights.
    """
    arguments = dataclasses.asdict(options)
    if FIGURE_OF_NETWORK[options.name] == "accuracy":
        arguments["classes"] = classes
    return create_network(**arguments)


def parameter_count(network: nn.Cell) -> int:
    """The number of trainable weights."""
    return sum(parameter.size for parameter in network.trainable_params())
