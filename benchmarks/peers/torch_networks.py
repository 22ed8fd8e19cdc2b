"""The two networks in PyTorch, with the sizes of the zoo's."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.peers.problems import CHANNELS, CODE_LAYER, KERNEL, SIDE, WIDTHS


def create_network(name: str) -> nn.Module:
    """A network with PyTorch's initialization.

    Args:
        name: "convnet" or "autoencoder".

    Returns:
        The network.
    """
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    if name == "convnet":
        for index, (inputs, outputs) in enumerate(zip((3, *CHANNELS), CHANNELS)):
            pool = (nn.AvgPool2d if index else nn.MaxPool2d)(3, stride=2, ceil_mode=True)
            layers += [nn.Conv2d(inputs, outputs, KERNEL, padding=KERNEL // 2)]
            layers += [nn.ReLU(), pool] if index else [pool, nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS[-1] * SIDE * SIDE, 10))
    for index, (inputs, outputs) in enumerate(zip(WIDTHS, WIDTHS[1:])):
        layers.append(nn.Linear(inputs, outputs))
        if index not in (CODE_LAYER, len(WIDTHS) - 2):
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
