"""Vision transformers.

Dosovitskiy et al. 2020, "An image is worth 16x16 words", in the sizes of Touvron et al. 2021, "Training
data-efficient image transformers" (ViT-Tiny: width 192, 12 blocks, 3 heads). The logits come from the mean of
all positions, without a class token: Beyer, Zhai and Kolesnikov 2022, "Better plain ViT baselines for
ImageNet-1k".
"""

from __future__ import annotations

import mindspore as ms
import mindspore.nn as nn
from mindspore import Parameter, Tensor
from mindspore.common.initializer import Normal, Zero, initializer

from model_zoo.common.transformer import DEVIATION, TransformerBlock, projection


class ViT(nn.Cell):
    """Maps square RGB images to logits.

    Args:
        patch: the side of a patch, a divisor of the image's side.
        width: the width of a position.
        depth: the number of blocks.
        heads: the number of heads, a divisor of the width.
        projections: "separate" or "joint": see :class:`model_zoo.common.transformer.SelfAttention`.
        image_size: the side of an image.
        classes: the number of classes.

    Raises:
        ValueError: the patch does not divide the image's side, or as in `SelfAttention`.
    """

    def __init__(
        self,
        patch: int = 4,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        projections: str = "separate",
        *,
        image_size: int = 32,
        classes: int = 10,
    ) -> None:
        """Builds the layers."""
        super().__init__()
        if patch < 1 or image_size % patch:
            raise ValueError(f"patch: must be a divisor of the image's side {image_size}, got {patch!r}")
        positions = (image_size // patch) ** 2
        self.patches = nn.Conv2d(
            3,
            width,
            patch,
            patch,
            pad_mode="valid",
            has_bias=True,
            weight_init=Normal(DEVIATION),
            bias_init=Zero(),
        )
        self.position_embedding = Parameter(
            initializer(Normal(DEVIATION), (1, positions, width), ms.float32), name="position_embedding"
        )
        self.blocks = nn.SequentialCell(
            [TransformerBlock(width, heads, projections=projections, epsilon=1e-6) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm((width,), epsilon=1e-6)
        self.fc = projection(width, classes)

    def construct(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to logits (N, classes)."""
        x = self.patches(images)
        n, width, _, _ = x.shape
        x = x.reshape((n, width, -1)).transpose((0, 2, 1)) + self.position_embedding
        return self.fc(self.norm(self.blocks(x)).mean(1))
