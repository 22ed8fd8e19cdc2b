"""VGG networks with BatchNorm, in the form for 32x32 images.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014, table 1:
3x3 convolutions in five groups, each followed by 2x2 max pooling. Five poolings leave one location of a 32x32
image, so one dense layer is all that stays of the three of the ImageNet form. BatchNorm (Ioffe and Szegedy,
2015) follows each convolution, which therefore has no bias.
"""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor
from mindspore.common.initializer import Normal, Zero

from model_zoo.common.layers import convolution

# Convolutions of the five groups; columns A, B, D and E of table 1.
GROUPS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
# Channels of the five groups, as multiples of the first one's.
MULTIPLES = (1, 2, 4, 8, 8)


class VGG(nn.Cell):
    """A VGG network with BatchNorm for 32x32 RGB images.

    The convolutions start with He's weights, the dense layer with normal ones of deviation 0.01 and biases of
    zero. The paper draws all layers from one normal distribution and fills the first ones from a shallower
    network, trained before.

    Args:
        depth: 11, 13, 16 or 19. Depth 16 has 14.7 million weights.
        width: channels of the first group; the others have 2, 4, 8 and 8 times as many.
        classes: the number of classes.

    Raises:
        ValueError: the depth is none of these.
    """

    def __init__(self, depth: int = 16, *, width: int = 64, classes: int = 10) -> None:
        """Builds the layers."""
        super().__init__()
        if depth not in GROUPS:
            raise ValueError(f"depth must be one of {', '.join(map(str, GROUPS))}, but is {depth!r}")
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
