"""A 196-20-20-20-10 classifier of 14x14 digits, small enough to compute its exact Fisher matrix."""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor

from model_zoo.common.layers import create_activation, dense

SIZES = (196, 20, 20, 20)


class MLP(nn.Cell):
    """Maps flat images to logits.

    Args:
        nonlinearity: the activation between layers: "relu", "tanh" or "sigmoid".
        classes: the number of classes.
    """

    def __init__(self, nonlinearity: str = "tanh", *, classes: int = 10) -> None:
        """Builds the layers."""
        super().__init__()
        cells: list[nn.Cell] = []
        for inputs, outputs in zip(SIZES[:-1], SIZES[1:]):
            cells += [dense(inputs, outputs, nonlinearity), create_activation(nonlinearity)]
        self.layers = nn.SequentialCell([*cells, dense(SIZES[-1], classes, "linear")])

    def construct(self, images: Tensor) -> Tensor:
        """Maps images (N, 196) to logits (N, classes)."""
        return self.layers(images)
