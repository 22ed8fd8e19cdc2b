"""Residual networks in the ImageNet form.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2015, section 4.1 and table 1: a 7x7
convolution, 3x3 max pooling, four stages of basic or bottleneck blocks, global average pooling and one dense
layer. As in later implementations, a bottleneck has its stride in the 3x3 convolution, not in the 1x1 before
it. Shortcuts are projections if the shape changes (option B).
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore.nn as nn
from mindspore import Tensor

from model_zoo.common.layers import convolution
from model_zoo.resnet.network import BasicBlock, create_shortcut

EXPANSION = 4
# Blocks of the four stages, from table 1; depths of 50 and more have bottlenecks.
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
FIRST_WITH_BOTTLENECKS = 50


class Bottleneck(nn.Cell):
    """A 1x1, a 3x3 and a 1x1 convolution with a shortcut."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        """Builds the layers from the input channels, and the channels and stride of the 3x3 convolution."""
        super().__init__()
        outputs = EXPANSION * inner
        self.conv1 = convolution(inputs, inner, 1, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = convolution(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = convolution(inner, outputs, 1, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = create_shortcut("projection", inputs, outputs, stride)

    def construct(self, x: Tensor) -> Tensor:
        """Maps (N, inputs, H, W) to (N, 4 inner, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class ImageNetResNet(nn.Cell):
    """A residual network for 224x224 RGB images.

    Args:
        depth: 18 or 34 with basic blocks; 50, 101 or 152 with bottlenecks.
        width: number of channels of the first convolution.
        blocks: blocks per stage, instead of those of the depth.
        classes: the number of classes.

    Raises:
        ValueError: the depth is not one of these.
    """

    def __init__(
        self, depth: int = 50, *, width: int = 64, blocks: Sequence[int] | None = None, classes: int = 1000
    ) -> None:
        """Builds the layers."""
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"depth: must be one of {', '.join(map(str, BLOCKS))}, got {depth!r}")
        self.conv1 = convolution(3, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="pad", padding=1)
        counts = BLOCKS[depth] if blocks is None else tuple(blocks)
        bottlenecks = depth >= FIRST_WITH_BOTTLENECKS
        inputs, stages = width, []
        for stage, count in enumerate(counts):
            inner = width * 2**stage
            cells: list[nn.Cell] = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                if bottlenecks:
                    cells.append(Bottleneck(inputs, inner, stride))
                else:
                    cells.append(BasicBlock(inputs, inner, stride, "projection"))
                inputs = EXPANSION * inner if bottlenecks else inner
            stages.append(nn.SequentialCell(cells))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Dense(inputs, classes)

    def construct(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to logits (N, classes)."""
        x = self.pool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))
