"""A small convolutional network: three convolutions and one dense layer, without normalization.

Grosse and Martens, "A Kronecker-factored approximate Fisher matrix for convolution layers", 2016, train
networks of this form. The sizes are from Krizhevsky's cuda-convnet, example-layers/layers-18pct.cfg: 5x5
convolutions with 32, 32 and 64 channels, each followed by overlapping 3x3 pooling with stride 2. The first
pooling takes maxima, the others means. The response normalization of that file, which has no weights, is left
out.
"""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor

from model_zoo.common.layers import convolution, dense

CHANNELS = (32, 32, 64)
KERNEL = 5
# Side of a 32x32 image after three poolings with stride 2.
SIDE = 4


def _pool(kind: type[nn.MaxPool2d] | type[nn.AvgPool2d]) -> nn.Cell:
    # "same" with stride 2 pads a row and a column at the end: windows begin at 0, as in cuda-convnet.
    return kind(kernel_size=3, stride=2, pad_mode="same")


class ConvNet(nn.Cell):
    """A small convolutional network for 32x32 RGB images, with 89,578 weights for ten classes.

    Weights have He initialization, and biases are zero. The standard deviations of 0.0001 and 0.01 in the
    file belong to its learning rates.

    Args:
        classes: the number of classes.
    """

    def __init__(self, *, classes: int = 10) -> None:
        """Builds the layers."""
        super().__init__()
        first, second, third = CHANNELS
        self.conv1 = convolution(3, first, KERNEL, 1, bias=True)
        self.pool1 = _pool(nn.MaxPool2d)
        self.conv2 = convolution(first, second, KERNEL, 1, bias=True)
        self.pool2 = _pool(nn.AvgPool2d)
        self.conv3 = convolution(second, third, KERNEL, 1, bias=True)
        self.pool3 = _pool(nn.AvgPool2d)
        self.relu = nn.ReLU()
        self.flatten = nn.Flatten()
        self.fc = dense(third * SIDE * SIDE, classes, "linear")

    def construct(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, 32, 32) to logits (N, classes)."""
        x = self.relu(self.pool1(self.conv1(images)))
        x = self.pool2(self.relu(self.conv2(x)))
        x = self.pool3(self.relu(self.conv3(x)))
        return self.fc(self.flatten(x))
