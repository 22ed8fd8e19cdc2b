"""Kernel, stride, dilation, padding and groups of a convolution of images or volumes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvolutionGeometry:
    """Geometry of a convolution with two or three spatial axes.

    Attributes:
        kernel_size: size of the kernel per axis: [depth,] height and width.
        stride: stride per axis.
        dilation: dilation per axis.
        pad_mode: "pad" (uses ``padding``), "same" (the output size is the input size divided by the stride,
            rounded up; an odd element of padding goes to the end of the axis, as in MindSpore's Conv2D) or
            "valid".
        padding: elements added before and after each axis: [head, tail,] top, bottom, left and right. Used
            only with pad_mode "pad".
        groups: number of channel groups.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad_mode: str
    padding: tuple[int, ...]
    groups: int

    def reach(self, axis: int) -> int:
        """Number of elements of an axis that the kernel spans."""
        return self.dilation[axis] * (self.kernel_size[axis] - 1) + 1

    def padding_for(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Padding before and after each axis of an image or a volume of these sizes."""
        if self.pad_mode == "valid":
            return (0,) * (2 * len(sizes))
        if self.pad_mode == "pad":
            return self.padding
        amounts: tuple[int, ...] = ()
        for axis in range(len(sizes)):
            outputs = -(-sizes[axis] // self.stride[axis])
            total = max((outputs - 1) * self.stride[axis] + self.reach(axis) - sizes[axis], 0)
            amounts = (*amounts, total // 2, total - total // 2)
        return amounts
