"""The preconditioned gradients of all layers: in one kernel where blocks allow it, else block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Tensor, nn, ops

from ms_kfac.kernels.operator import is_native
from ms_kfac.ops.kronecker_precondition import KroneckerPrecondition, TwoSided


class Preconditioner(nn.Cell):
    r"""Preconditioned gradients, and their inner products with the gradients.

    Args:
        blocks: the curvature blocks.
        positions: for every block, where weight and bias stand among the parameters.
        parameters: number of parameters.

    Attributes:
        order: of every U the position of its parameter.

    Inputs:
        - **gradients** (tuple[Tensor]) - one a parameter.

    Outputs:
        - tuple[Tensor], U of every preconditioned parameter, in ``order``.
        - Tensor, float32, :math:`\langle dW_i, U_i \rangle` in ``order``, shape :math:`(k,)`.

    Platforms: CPU (native or composed), GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, blocks: Sequence[Any], positions: Sequence[tuple[int, ...]], parameters: int) -> None:
        super().__init__(auto_prefix=False)
        forms = [two_sided(block) for block in blocks]
        has_kernel = is_native("kronecker_precondition")
        parts = []
        order: tuple[int, ...] = ()
        for native in (True, False):
            chosen = [i for i, form in enumerate(forms) if (has_kernel and form is not None) == native]
            own_forms = [form for form in (forms[index] for index in chosen) if form is not None]
            own_positions = [tuple(positions[index]) for index in chosen]
            own_blocks = [blocks[index] for index in chosen]
            order = (*order, *(position for own in own_positions for position in own))
            if chosen:
                parts.append(
                    KroneckerPrecondition(own_blocks, own_forms, own_positions, parameters, native=native)
                )
        self.parts = nn.CellList(parts, auto_prefix=False)
        self.order = order
        self.parameters_count = parameters
        self.concat = ops.Concat()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        updates, products = self.parts[0](gradients)
        if len(self.parts) > 1:
            others, more = self.parts[1](gradients)
            return (*updates, *others), self.concat((products, more))
        return updates, products

    def sources(self) -> tuple[int, ...]:
        """Of every parameter the place of its update among those in ``order`` with all gradients behind."""
        return tuple(
            self.order.index(position) if position in self.order else len(self.order) + position
            for position in range(self.parameters_count)
        )


def two_sided(block: Any) -> TwoSided | None:
    """What a block says in ``native_precondition``, unless a subclass has overridden ``precondition`` since.

    Args:
        block: the curvature block.

    Returns:
        Its native form; None where there is none.
    """
    lineage = type(block).__mro__

    def depth(method: str) -> int:
        return next(level for level, owner in enumerate(lineage) if method in vars(owner))

    if depth("precondition") < depth("native_precondition"):
        return None
    form: TwoSided | None = block.native_precondition()
    return form
