"""The networks of the zoo by name."""

from __future__ import annotations

from typing import Any

import mindspore.nn as nn

from model_zoo.autoencoder.network import AutoEncoder
from model_zoo.mlp.network import MLP
from model_zoo.resnet.network import ResNet

NETWORKS = {"resnet": ResNet, "autoencoder": AutoEncoder, "mlp": MLP}


def create_network(name: str, **options: Any) -> nn.Cell:
    """Builds a network.

    Args:
        name: "resnet", "autoencoder" or "mlp".
        **options: the arguments of its class.

    Returns:
        The network with freshly drawn weights.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in NETWORKS:
        raise ValueError(f"there is no network {name!r}; there are {', '.join(NETWORKS)}")
    return NETWORKS[name](**options)


def parameter_count(network: nn.Cell) -> int:
    """The number of trainable weights."""
    return sum(parameter.size for parameter in network.trainable_params())
