r"""Multiply the gradients of many layers by the inverses of their Kronecker-factored Fisher blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.kernels.operator import native_operator


@dataclass(frozen=True)
class TwoSided:
    r"""A block that preconditions by :math:`U = c\, L\, dW\, R`.

    Attributes:
        left: L: one matrix, or a stack of its diagonal blocks and the last one of another size. With groups
            one matrix a group.
        right: R likewise, of one more row than dW has columns where there is a bias.
        scale: c, one a group; None for 1.
    """

    left: tuple[Parameter, ...]
    right: tuple[Parameter, ...]
    scale: Parameter | None = None


class KroneckerPrecondition(nn.Cell):
    r"""Preconditioned gradients of layers whose blocks multiply from two sides, in one call.

    .. math::
        [U_W\ U_b] = c\, G^{-1} [dW\ db]\, A^{-1}

    (Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature",
    section 4.2), with c = 1 but for SMKFAC; one such product a group for grouped convolutions. Neither
    :math:`[dW\ db]` nor :math:`[U_W\ U_b]` is formed: the bias enters by the last row and column of
    :math:`A^{-1}`. The composed form is every block's own ``precondition``.

    Args:
        blocks: the curvature blocks of the layers.
        forms: what they say in ``native_precondition``.
        positions: for every layer, which of the gradients are dW and, where it has a bias, db.
        gradients: number of gradients.
        native: whether the kernel runs; else the blocks' composed form.

    Inputs:
        - **gradients** (tuple[Tensor]) - those of the layers, in the shapes of their parameters, float32, and
          maybe others.

    Outputs:
        - tuple[Tensor], U of the layers, in the order of ``positions``.
        - Tensor, float32, the inner product of each U with its gradient, shape :math:`(k,)`.

    Platforms: CPU (native or composed), GPU, Ascend (composed of MatMul, Concat and Reshape).
    """

    def __init__(
        self,
        blocks: Sequence[Any],
        forms: Sequence[TwoSided],
        positions: Sequence[tuple[int, ...]],
        gradients: int,
        *,
        native: bool,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.blocks = nn.CellList(list(blocks), auto_prefix=False)
        self.positions = tuple(positions)
        self.native = native
        self.inner_products = InnerProducts()
        if native:
            self.inverses = ParameterTuple([parameter for form in forms for parameter in _parameters(form)])
            self.kernel = _kernel(blocks, forms, positions, gradients)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        if self.native:
            outputs = self.kernel(gradients, self.inverses)
            return outputs[:-1], outputs[-1]
        updates: tuple[Tensor, ...] = ()
        own: tuple[Tensor, ...] = ()
        for index in range(len(self.blocks)):
            positions = self.positions[index]
            weight, bias = gradients[positions[0]], gradients[positions[-1]]
            updates = (*updates, *self.blocks[index].precondition_layer(weight, bias))
            for position in positions:
                own = (*own, gradients[position])
        return updates, self.inner_products(own, updates)


class InnerProducts(nn.Cell):
    r"""Inner products of gradients and updates, :math:`\langle dW_i, U_i \rangle`.

    Inputs:
        - **gradients** (tuple[Tensor]) - k tensors.
        - **updates** (tuple[Tensor]) - tensors of the same shapes.

    Outputs:
        Tensor, float32, shape :math:`(k,)`.

    Platforms: CPU, GPU, Ascend (composed of Mul, ReduceSum and Stack).
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.reduce_sum = ops.ReduceSum()
        self.stack = ops.Stack()

    def construct(self, gradients: tuple[Tensor, ...], updates: tuple[Tensor, ...]) -> Tensor:
        products: tuple[Tensor, ...] = ()
        for index in range(len(gradients)):
            products = (*products, self.reduce_sum(gradients[index] * updates[index]))
        return self.stack(products)


def _parameters(form: TwoSided) -> tuple[Parameter, ...]:
    return (*form.left, *form.right, *(() if form.scale is None else (form.scale,)))


def _kernel(
    blocks: Sequence[Any], forms: Sequence[TwoSided], positions: Sequence[tuple[int, ...]], gradients: int
) -> Any:
    shapes: tuple[tuple[int, ...], ...] = ()
    for block in blocks:
        matrix = block.weight_matrix
        shapes = (*shapes, matrix.weight_shape, *((matrix.bias_shape,) if matrix.bias else ()))
    return native_operator(
        "kronecker_precondition",
        shapes=lambda *inputs: (*map(list, shapes), [len(shapes)]),
        dtypes=(ms.float32,) * (len(shapes) + 1),
        gradients=gradients,
        positions=[position for own in positions for position in own],
        groups=[block.groups for block in blocks],
        biases=[int(block.weight_matrix.bias) for block in blocks],
        left_arrays=[len(form.left) for form in forms],
        right_arrays=[len(form.right) for form in forms],
        scales=[int(form.scale is not None) for form in forms],
    )
