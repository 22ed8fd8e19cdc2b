r"""Multiply the gradients of many layers by the inverses of their Fisher blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.kernels.operator import is_native, native_operator
from ms_kfac.kernels.precision import precision


class NativeForm(Protocol):
    """Inputs of a native preconditioning kernel, from a block's ``native_precondition``."""

    def parameters(self) -> tuple[Parameter, ...]:
        """The Parameters that the kernel reads."""


class LayerPrecondition(nn.Cell):
    r"""Precondition the gradients of layers, :math:`U = F^{-1} dW`, and compute the inner products with dW.

    The fallback calls the ``precondition_layer`` method of each block. A subclass names the operator whose
    kernel preconditions all of its layers in one call. With a kernel, the graph forms neither
    :math:`[dW\ db]` nor :math:`[U_W\ U_b]`.

    Args:
        blocks: the curvature blocks of the layers.
        forms: the result of each block's ``native_precondition``.
        positions: for each layer, the index of dW among the gradients and, if the layer has a bias, of db.
        gradients: number of gradients.

    Inputs:
        - **gradients** (tuple[Tensor]) - the layers' gradients, in the shapes of their parameters, float32,
          possibly with others.

    Outputs:
        - tuple[Tensor], U of the layers, in the order of ``positions``.
        - Tensor, float32, the inner product of each U with its gradient, shape :math:`(k,)`.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of the blocks' operators, Mul and
    ReduceSum).
    """

    operator: str | None = None

    def __init__(
        self,
        blocks: Sequence[Any],
        forms: Sequence[NativeForm | None],
        positions: Sequence[tuple[int, ...]],
        gradients: int,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.blocks = nn.CellList(list(blocks), auto_prefix=False)
        self.positions = tuple(positions)
        self.reduce_sum = ops.ReduceSum()
        self.stack = ops.Stack()
        self.native = self.operator is not None and is_native(self.operator)
        if self.operator is not None and self.native:
            present = [form for form in forms if form is not None]
            self.inverses = ParameterTuple([p for form in present for p in form.parameters()])
            shapes = _shapes(blocks)
            self.kernel = native_operator(
                self.operator,
                shapes=lambda *inputs: (*map(list, shapes), [len(shapes)]),
                dtypes=(ms.float32,) * (len(shapes) + 1),
                gradients=gradients,
                positions=[position for own in positions for position in own],
                groups=[block.groups for block in blocks],
                biases=[int(block.weight_matrix.bias) for block in blocks],
                precision=precision("preconditioning"),
                **self.attributes(present),
            )

    def attributes(self, forms: Sequence[Any]) -> dict[str, list[int]]:
        """Kernel attributes in addition to the common ones."""
        return {}

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        if self.native:
            outputs = self.kernel(gradients, *self.inverses)
            return outputs[:-1], outputs[-1]
        updates: tuple[Tensor, ...] = ()
        products: tuple[Tensor, ...] = ()
        for index in range(len(self.blocks)):
            positions = self.positions[index]
            weight, bias = gradients[positions[0]], gradients[positions[-1]]
            own = self.blocks[index].precondition_layer(weight, bias)
            for part in range(len(positions)):
                products = (*products, self.reduce_sum(gradients[positions[part]] * own[part]))
            updates = (*updates, *own)
        return updates, self.stack(products)


def _shapes(blocks: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    shapes: tuple[tuple[int, ...], ...] = ()
    for block in blocks:
        matrix = block.weight_matrix
        shapes = (*shapes, matrix.weight_shape, *((matrix.bias_shape,) if matrix.bias else ()))
    return shapes
