"""The deep auto-encoder of MNIST.

Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 2006:
784-1000-500-250-30 and back. The code layer of 30 is linear; the output is the logit of a pixel's intensity.
"""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor

from model_zoo.common.layers import create_activation, dense

SIZES = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
CODE_LAYER = 3


class AutoEncoder(nn.Cell):
    """Maps flat images to the logits of their pixels.

    Args:
        nonlinearity: "relu", "tanh" or "sigmoid", after all layers except the code layer and the output.
    """

    def __init__(self, nonlinearity: str = "relu") -> None:
        """Builds the layers."""
        super().__init__()
        cells: list[nn.Cell] = []
        for index, (inputs, outputs) in enumerate(zip(SIZES[:-1], SIZES[1:])):
            linear = index in (CODE_LAYER, len(SIZES) - 2)
            cells.append(dense(inputs, outputs, "linear" if linear else nonlinearity))
            if not linear:
                cells.append(create_activation(nonlinearity))
        self.layers = nn.SequentialCell(cells)

    def construct(self, images: Tensor) -> Tensor:
        """Maps images (N, 784) to logits (N, 784)."""
        return self.layers(images)
