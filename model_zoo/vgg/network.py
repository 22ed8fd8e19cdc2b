"""VGG networks with BatchNorm, adapted to 32x32 images.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014, table 1:
3x3 convolutions in five groups, each followed by 2x2 max pooling. Five poolings reduce a 32x32 image to one
pixel, so one dense layer replaces the three of the ImageNet form. BatchNorm (Ioffe and Szegedy, 2015) follows
each convolution, which therefore has no bias.
"""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor
from mindspore.common.initializer import Normal, Zero

from model_zoo.common.layers import convolution

# Convolutions per group; columns A, B, D and E of table 1.
GROUPS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
# Channels per group, as multiples of the first group's.
MULTIPLES = (1, 2, 4, 8, 8)


class VGG(nn.Cell):
    """A VGG network with BatchNorm for 32x32 RGB images.

    The convolutions have He initialization. The dense layer has normal weights of standard deviation 0.01 and
    zero biases. The paper initializes all layers from one normal distribution, and the first ones from a
    trained, shallower network.

    Args:
        depth: 11, 13, 16 or 19. Depth 16 has 14.7 million weights.
        width: number of channels of the first group; the others have 2, 4, 8 and 8 times as many.
        classes: the number of classes.

    Raises:
        ValueError: the depth is not one of these.
    """

    def __init__(self, depth: int = 16, *, width: int = 64, classes: int = 10) -> None:
        """Builds the layers."""
        super().__init__()
        if depth not in GROUPS:
            raise ValueError(f"depth: must be one of {', '.join(map(str, GROUPS))}, got {depth!r}")
        inputs, cells = 3, []
        for convolutions, multiple in zip(GROUPS[depth], MULTIPLES):
            for _ in range(convolutions):
                outputs = multiple * width
                cells += [convolution(inputs, outputs, 3, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            cells.append(nn.MaxPool2d(kernel_size=2, stride=2))
        self.features = nn.SequentialCell(cells)
        self.fc = nn.Dense(inputs, classes, weight_init=Normal(0.01), bias_init=Zero())

    def construct(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, 32, 32) to logits (N, classes)."""
        return self.fc(self.features(images).mean((2, 3)))
