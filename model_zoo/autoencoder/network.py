"""The deep auto-encoder of MNIST.

Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 2006:
784-1000-500-250-30 and back. The code layer of 30 is linear; the output is the logit of a pixel's intensity.
"""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor

from model_zoo.common.layers import dense, nonlinearity_of

SIZES = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
CODE_LAYER = 3


class AutoEncoder(nn.Cell):
    """Flat images to logits of the same pixels.

    Args:
        nonlinearity: between all layers but after the code and the output: "relu", "tanh" or "sigmoid".
    """

    def __init__(self, nonlinearity: str = "relu") -> None:
        """Builds the layers."""
        super().__init__()
        cells: list[nn.Cell] = []
        for index, (inputs, outputs) in enumerate(zip(SIZES[:-1], SIZES[1:])):
            linear = index in (CODE_LAYER, len(SIZES) - 2)
            cells.append(dense(inputs, outputs, "linear" if linear else nonlinearity))
            if not linear:
                cells.append(nonlinearity_of(nonlinearity))
        self.layers = nn.SequentialCell(cells)

    def construct(self, images: Tensor) -> Tensor:
        """Maps images (N, 784) to logits (N, 784)."""
        return self.layers(images)
