"""The zoo's networks by name."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import mindspore.nn as nn

from model_zoo.autoencoder.network import AutoEncoder
from model_zoo.common.options.networks import METRIC_OF_NETWORK, NetworkOptions
from model_zoo.convnet.network import ConvNet
from model_zoo.gpt.network import GPT
from model_zoo.mlp.network import MLP
from model_zoo.resnet.imagenet import ImageNetResNet
from model_zoo.resnet.network import ResNet
from model_zoo.vgg.network import VGG
from model_zoo.vit.network import ViT

NETWORKS: dict[str, Callable[..., nn.Cell]] = {
    "resnet": ResNet,
    "imagenet_resnet": ImageNetResNet,
    "vgg": VGG,
    "convnet": ConvNet,
    "autoencoder": AutoEncoder,
    "mlp": MLP,
    "vit": ViT,
    "gpt": GPT,
}
# Names with a depth: the family in NETWORKS, and the depth.
DEPTHS = {
    **{f"resnet{depth}": ("resnet", depth) for depth in (20, 32, 44, 56, 110)},
    **{f"resnet{depth}": ("imagenet_resnet", depth) for depth in (18, 34, 50, 101, 152)},
    **{f"vgg{depth}": ("vgg", depth) for depth in (11, 13, 16, 19)},
}


def create_network(name: str, **options: Any) -> nn.Cell:
    """Builds a network.

    Args:
        name: a family ("resnet" for the CIFAR form, "imagenet_resnet", "vgg", "convnet", "autoencoder",
            "mlp", "vit" or "gpt"), or a family with a depth, such as "resnet20", "resnet50" or "vgg16".
            ResNets of depth 20, 32, 44, 56 and 110 have the CIFAR form; 18, 34, 50, 101 and 152 the ImageNet
            form.
        **options: the arguments of its class, such as `classes`, `width` and `shortcut`.

    Returns:
        The network with newly initialized weights.

    Raises:
        ValueError: the name is unknown, or contains a depth while `depth` is also given.
    """
    if name in DEPTHS:
        family, depth = DEPTHS[name]
        if "depth" in options:
            raise ValueError(
                f"depth: must be left out with {name!r}, whose depth is {depth}; {family!r} accepts it"
            )
        return NETWORKS[family](depth=depth, **options)
    if name not in NETWORKS:
        known = ", ".join([*NETWORKS, *DEPTHS])
        raise ValueError(f"name: must be one of {known}, got {name!r}")
    return NETWORKS[name](**options)


def build_network(options: NetworkOptions, classes: int) -> nn.Cell:
    """Builds the network of a recipe.

    Args:
        options: the recipe's network section.
        classes: the number of classes in the data; unused by an auto-encoder and by a network on bytes.

    Returns:
        The network with newly initialized weights.
    """
    arguments = dataclasses.asdict(options)
    if METRIC_OF_NETWORK[options.name] == "accuracy":
        arguments["classes"] = classes
    return create_network(**arguments)


def parameter_count(network: nn.Cell) -> int:
    """The number of trainable weights."""
    return sum(parameter.size for parameter in network.trainable_params())
