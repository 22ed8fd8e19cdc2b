"""Many layers side by side in one net, each with its own input: one compilation for many checks.

The loss is (1/N) Σ_layers Σ y ⊙ c with fixed coefficients c, so that the per-sample output gradient of every
layer is its c exactly, and no derivative has to be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import nn

from tests.oracle.patches import Geometry


class Bank(nn.Cell):
    """Applies layer i to input i; its name in the net is `layers.i`."""

    def __init__(self, layers: Sequence[nn.Cell]) -> None:
        super().__init__()
        self.layers = nn.CellList(layers)

    def construct(self, *inputs: ms.Tensor) -> tuple[ms.Tensor, ...]:
        outputs = ()
        for i in range(len(self.layers)):
            outputs += (self.layers[i](inputs[i]),)
        return outputs


def convolution(geometry: Geometry, rng: np.random.Generator) -> nn.Conv2d:
    """A `nn.Conv2d` of that geometry with random weights."""
    layer = nn.Conv2d(
        geometry.in_channels,
        geometry.out_channels,
        geometry.kernel,
        stride=geometry.stride,
        pad_mode=geometry.pad_mode,
        padding=geometry.padding,
        dilation=geometry.dilation,
        group=geometry.groups,
        has_bias=geometry.bias,
    )
    randomise(layer, rng)
    return layer


def randomise(cell: nn.Cell, rng: np.random.Generator, scale: float = 0.5) -> None:
    """Normal random values in every trainable Parameter."""
    for parameter in cell.trainable_params():
        parameter.set_data(ms.Tensor(scale * rng.standard_normal(parameter.shape), ms.float32))


def linear_loss(
    net: nn.Cell, coefficients: Sequence[np.ndarray], scale: float | None = None
) -> Callable[..., ms.Tensor]:
    """The loss of this module's first lines; `scale` replaces 1/N."""
    tensors = tuple(ms.Tensor(c, ms.float32) for c in coefficients)
    factor = 1.0 / len(coefficients[0]) if scale is None else scale

    def forward(*inputs: ms.Tensor) -> ms.Tensor:
        outputs = net(*inputs)
        loss = 0.0
        for i in range(len(tensors)):
            loss = loss + (outputs[i] * tensors[i]).sum()
        return loss * factor

    return forward


def backward(
    forward: Callable[..., ms.Tensor], parameters: Sequence[ms.Parameter], *inputs: np.ndarray
) -> tuple[ms.Tensor, ...]:
    """The gradients of the parameters, by one backward pass (which runs the taps)."""
    gradient = ms.value_and_grad(forward, None, ms.ParameterTuple(parameters))
    _, gradients = gradient(*(tensor(x) for x in inputs))
    return gradients


def tensor(array: np.ndarray) -> ms.Tensor:
    """float32 for numbers, int32 for labels."""
    array = np.asarray(array)
    return ms.Tensor(array.astype(np.int32 if array.dtype.kind == "i" else np.float32))
