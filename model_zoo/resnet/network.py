"""Residual networks in the CIFAR form.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2015, section 4.2: a 3x3 convolution,
three stages of n blocks with 16, 32 and 64 channels at 32x32, 16x16 and 8x8, global average pooling and one
dense layer. The network has 6n + 2 layers with weights.
"""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor, ops

from model_zoo.common.layers import convolution


class IdentityShortcut(nn.Cell):
    """Option A of the paper: every second pixel, and zeros for the added channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Builds the layer from the numbers of channels and the stride of the block."""
        super().__init__()
        # Pooling with a one-pixel window: MindSpore 2.10 fails on the gradient of a slice in PyNative mode.
        self.subsample = nn.MaxPool2d(kernel_size=1, stride=stride)
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def construct(self, x: Tensor) -> Tensor:
        """Maps (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        x = self.subsample(x)
        n, _, height, width = x.shape
        before = ops.zeros((n, self.before, height, width), x.dtype)
        after = ops.zeros((n, self.after, height, width), x.dtype)
        return ops.concat((before, x, after), axis=1)


def create_shortcut(kind: str, inputs: int, outputs: int, stride: int) -> nn.Cell:
    """Creates a block's shortcut: nothing if the shape stays, else "identity" or "projection"."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    if kind == "identity":
        return IdentityShortcut(inputs, outputs, stride)
    return nn.SequentialCell(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Cell):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        """Takes the channels, the stride of the first convolution and the kind of shortcut."""
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, 3, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = create_shortcut(shortcut, inputs, outputs, stride)

    def construct(self, x: Tensor) -> Tensor:
        """Maps (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Cell):
    """A residual network for 32x32 RGB images.

    Args:
        depth: 6n + 2: 20, 32, 44, 56, 110.
        width: multiplier of the channels of every stage; depth 20 has 0.27 million weights at width 1, 4.3
            million at width 4.
        shortcut: "identity" for option A of the paper (no weights, used on CIFAR-10), or "projection" for
            option B (1x1 convolutions if the shape changes).
        classes: the number of classes.

    Raises:
        ValueError: the depth is not 6n + 2, or the shortcut is unknown.
    """

    def __init__(
        self, depth: int = 20, width: int = 1, shortcut: str = "identity", classes: int = 10
    ) -> None:
        """Builds the layers."""
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth: must be 6n + 2 with n of at least 1, got {depth}")
        if shortcut not in ("identity", "projection"):
            raise ValueError(f"shortcut: must be 'identity' or 'projection', got {shortcut!r}")
        blocks = (depth - 2) // 6
        channels = 16 * width
        self.conv1 = convolution(3, channels, 3, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(channels, channels, blocks, 1, shortcut)
        self.layer2 = self._stage(channels, 2 * channels, blocks, 2, shortcut)
        self.layer3 = self._stage(2 * channels, 4 * channels, blocks, 2, shortcut)
        self.fc = nn.Dense(4 * channels, classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int, shortcut: str) -> nn.SequentialCell:
        first = BasicBlock(inputs, outputs, stride, shortcut)
        return nn.SequentialCell(
            [first, *(BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1))]
        )

    def construct(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, 32, 32) to logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))
