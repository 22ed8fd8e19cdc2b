"""Patches of a convolution by plain loops: what im2col must give, whatever the geometry.

Layouts: images (N, C, H, W); patches (N, H_out, W_out, C, k_h, k_w), so that flattening the last three axes
gives the order of `weight.reshape(c_out, -1)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Geometry:
    """A convolution: its channels and how its window moves.

    `padding` is read for `pad_mode="pad"` only: one number or (top, bottom, left, right).
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    pad_mode: str = "same"
    padding: int | tuple[int, int, int, int] = 0
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = False
    image: tuple[int, int] = field(default=(6, 6))

    def borders(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of zeros: ((top, bottom), (left, right))."""
        if self.pad_mode == "valid":
            return (0, 0), (0, 0)
        if self.pad_mode == "pad":
            if isinstance(self.padding, int):
                return (self.padding, self.padding), (self.padding, self.padding)
            top, bottom, left, right = self.padding
            return (top, bottom), (left, right)
        borders = []
        for axis in range(2):
            size, stride = self.image[axis], self.stride[axis]
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            # MindSpore puts the odd row or column after the image.
            borders.append((total // 2, total - total // 2))
        return borders[0], borders[1]

    def output_size(self) -> tuple[int, int]:
        """(H_out, W_out)."""
        sizes = []
        for axis, (before, after) in enumerate(self.borders()):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            sizes.append((self.image[axis] + before + after - reach) // self.stride[axis] + 1)
        return sizes[0], sizes[1]

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(c_out, c_in / groups, k_h, k_w)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)


def extract(images: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Patches (N, H_out, W_out, C, k_h, k_w) of `images`, in float64."""
    padded = np.pad(np.asarray(images, np.float64), ((0, 0), (0, 0), *geometry.borders()))
    height, width = geometry.output_size()
    (k_h, k_w), (s_h, s_w), (d_h, d_w) = geometry.kernel, geometry.stride, geometry.dilation
    patches = np.empty((len(images), height, width, images.shape[1], k_h, k_w))
    for row in range(height):
        for column in range(width):
            for i in range(k_h):
                for j in range(k_w):
                    patches[:, row, column, :, i, j] = padded[
                        :, :, row * s_h + i * d_h, column * s_w + j * d_w
                    ]
    return patches


def fold(patches: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The transpose of `extract`: sums patches back into images (N, C, H, W)."""
    (top, bottom), (left, right) = geometry.borders()
    image_h, image_w = geometry.image
    padded = np.zeros((len(patches), patches.shape[3], image_h + top + bottom, image_w + left + right))
    height, width = geometry.output_size()
    (k_h, k_w), (s_h, s_w), (d_h, d_w) = geometry.kernel, geometry.stride, geometry.dilation
    for row in range(height):
        for column in range(width):
            for i in range(k_h):
                for j in range(k_w):
                    padded[:, :, row * s_h + i * d_h, column * s_w + j * d_w] += patches[
                        :, row, column, :, i, j
                    ]
    return padded[:, :, top : top + image_h, left : left + image_w]


def convolve(
    images: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> np.ndarray:
    """The convolution itself (N, c_out, H_out, W_out), from the patches."""
    patches = extract(images, geometry)
    per_in, per_out = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    outputs = []
    for group in range(geometry.groups):
        block = patches[:, :, :, group * per_in : (group + 1) * per_in]
        rows = weight[group * per_out : (group + 1) * per_out].reshape(per_out, -1)
        outputs.append(block.reshape(*block.shape[:3], -1) @ rows.T)
    output = np.moveaxis(np.concatenate(outputs, axis=-1), -1, 1)
    return output if bias is None else output + bias[:, None, None]
