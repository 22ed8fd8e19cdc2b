"""A classifier of 14x14 digits, 196-20-20-20-10: small enough for its exact Fisher matrix to be computed."""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor

from model_zoo.common.layers import dense, nonlinearity_of

SIZES = (196, 20, 20, 20)


class MLP(nn.Cell):
    """Flat images to logits.

    Args:
        nonlinearity: between the layers: "relu", "tanh" or "sigmoid".
        classes: the number of classes.
    """

    def __init__(self, nonlinearity: str = "tanh", *, classes: int = 10) -> None:
        """Builds the layers."""
        super().__init__()
        cells: list[nn.Cell] = []
        for inputs, outputs in zip(SIZES[:-1], SIZES[1:]):
            cells += [dense(inputs, outputs, nonlinearity), nonlinearity_of(nonlinearity)]
        self.layers = nn.SequentialCell([*cells, dense(SIZES[-1], classes, "linear")])

    def construct(self, images: Tensor) -> Tensor:
        """Maps images (N, 196) to logits (N, classes)."""
        return self.layers(images)
