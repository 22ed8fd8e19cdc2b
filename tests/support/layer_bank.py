"""A bank of every kind of layer, with input and per-sample output gradient of each as inputs of the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn

from ms_kfac.capture.discover import discover
from ms_kfac.capture.layer import Layer
from tests.oracle.eigenbasis import conv_gradients, dense_gradients
from tests.oracle.factors import conv_factors, dense_factors
from tests.oracle.patches import Geometry
from tests.oracle.preconditioner import gradient_matrix
from tests.support.bank import Bank, convolution, randomise, tensor

STRIDED = Geometry(2, 3, (3, 2), (2, 1), "pad", (1, 0, 1, 1), bias=True, image=(5, 4))
GROUPED = Geometry(4, 6, (2, 2), groups=2, bias=True, image=(4, 3))


@dataclass(frozen=True)
class Case:
    """A layer: dense with `middle` axes between samples and features, or a convolution."""

    geometry: Geometry | None = None
    d_in: int = 4
    d_out: int = 3
    bias: bool = True
    middle: tuple[int, ...] = ()

    def layer(self, rng: np.random.Generator) -> nn.Cell:
        if self.geometry is not None:
            return convolution(self.geometry, rng)
        return nn.Dense(self.d_in, self.d_out, has_bias=self.bias)

    def batch(self, samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Input and per-sample output gradient."""
        shape = self.geometry
        if shape is not None:
            inputs: tuple[int, ...] = (shape.in_channels, *shape.image)
            outputs: tuple[int, ...] = (shape.out_channels, *shape.output_size())
        else:
            inputs, outputs = (*self.middle, self.d_in), (*self.middle, self.d_out)
        x, g = rng.standard_normal((samples, *inputs)), rng.standard_normal((samples, *outputs))
        # Scales that differ from coordinate to coordinate, as no test should rest on equal ones.
        return (x + 0.5).astype(np.float32), (g * (1 + 0.5 * rng.random())).astype(np.float32)

    def factors(
        self, x: np.ndarray, g: np.ndarray, sharing: str = "expand"
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """(A, G) of every group."""
        if self.geometry is None:
            return [dense_factors(x, g, self.bias, sharing)]
        A, G = conv_factors(x, g, self.geometry, sharing)
        return [(A, G)] if A.ndim == 2 else list(zip(A, G))

    def gradients(self, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        """dW_n of every group and sample, (groups, N, d_out, d_in [+ 1])."""
        if self.geometry is None:
            return dense_gradients(x, g, self.bias)
        return conv_gradients(x, g, self.geometry)

    @property
    def groups(self) -> int:
        """Number of channel groups."""
        return 1 if self.geometry is None else self.geometry.groups


CASES = (
    Case(),
    Case(bias=False, d_in=3, d_out=5),
    Case(middle=(3,)),
    Case(STRIDED),
    Case(GROUPED),
)


def build(cases: Sequence[Case], rng: np.random.Generator) -> Bank:
    """The net of the cases' layers."""
    net = Bank([case.layer(rng) for case in cases])
    randomise(net, rng)
    return net


def layers_of(net: nn.Cell) -> list[Layer]:
    """What the optimizers see of a net's layers."""
    return discover(net, net.trainable_params(), ())[0]


def gradient_function(
    net: Bank, parameters: Sequence[ms.Parameter], scale: float = 1.0, mean: bool = True
) -> Callable[..., tuple[ms.Tensor, ...]]:
    """Gradients of scale · (1/N or 1) Σ_layers Σ y ⊙ g as a function of the batch [(x, g) of every layer]."""
    count = len(net.layers)

    def forward(*arrays: ms.Tensor) -> ms.Tensor:
        outputs = net(*arrays[:count])
        loss = 0.0
        for i in range(count):
            loss = loss + (outputs[i] * arrays[count + i]).sum()
        return loss * (scale / arrays[0].shape[0] if mean else scale)

    gradient = ms.value_and_grad(forward, None, ms.ParameterTuple(parameters))

    def run(batch: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[ms.Tensor, ...]:
        return gradient(*(tensor(x) for x, _ in batch), *(tensor(g) for _, g in batch))[1]

    return run


def matrices(
    optimizer: nn.Optimizer, gradients: Sequence[ms.Tensor], name: str, groups: int
) -> list[np.ndarray]:
    """A layer's gradients, or preconditioned ones, as a matrix (d_out, d_in [+ 1]) a group."""
    arrays = {p.name: g.asnumpy() for p, g in zip(optimizer.parameters, gradients)}
    matrix = gradient_matrix(arrays[f"{name}.weight"], arrays.get(f"{name}.bias"))
    return np.split(matrix, groups)
