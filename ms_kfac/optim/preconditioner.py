"""Preconditioned gradients of all layers: in a few fused kernels if blocks allow it, else per block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Tensor, nn, ops

from ms_kfac.kernels.operator import is_native
from ms_kfac.ops.graph.rounds import in_rounds
from ms_kfac.ops.step.eigenbasis_precondition import EigenbasisForm, EigenbasisPrecondition
from ms_kfac.ops.step.kronecker_precondition import KroneckerForm, KroneckerPrecondition
from ms_kfac.ops.step.layer_precondition import LayerPrecondition, NativeForm
from ms_kfac.ops.step.skfac_precondition import SKFACForm, SKFACPrecondition

_OPERATORS: dict[type, type[LayerPrecondition]] = {
    KroneckerForm: KroneckerPrecondition,
    EigenbasisForm: EigenbasisPrecondition,
    SKFACForm: SKFACPrecondition,
    type(None): LayerPrecondition,
}


class Preconditioner(nn.Cell):
    r"""Preconditioned gradients, and their inner products with the gradients.

    Args:
        blocks: the curvature blocks.
        positions: indices of weight and bias among the parameters, per block.
        parameters: number of parameters.

    Attributes:
        parts: the operators: one for all blocks of a native form, or several with a few blocks each.
        native: whether a native kernel preconditions the block's gradients, per block.
        order: position of the parameter of each U.
        sources: index of each parameter's update in ``(*preconditioned, *gradients)``, where
            ``preconditioned`` is in ``order``.

    Inputs:
        - **gradients** (tuple[Tensor]) - one per parameter.

    Outputs:
        - tuple[Tensor], U of every preconditioned parameter, in ``order``.
        - Tensor, float32, :math:`\langle dW_i, U_i \rangle` in ``order``, shape :math:`(k,)`.

    Platforms: CPU (native or fallback), GPU, Ascend (fallback, composed of MindSpore operators).
    """

    def __init__(self, blocks: Sequence[Any], positions: Sequence[tuple[int, ...]], parameters: int) -> None:
        super().__init__(auto_prefix=False)
        forms = [native_form(block) for block in blocks]
        parts = []
        native: set[int] = set()
        order: tuple[int, ...] = ()
        for kind, operator in _OPERATORS.items():
            all_own = [index for index, form in enumerate(forms) if type(form) is kind]
            in_one_call = operator.operator is not None and is_native(operator.operator)
            for own in [all_own] if in_one_call and all_own else in_rounds(all_own):
                own_positions = [tuple(positions[index]) for index in own]
                own_forms = [forms[index] for index in own]
                part = operator([blocks[index] for index in own], own_forms, own_positions, parameters)
                native = {*native, *(own if part.native else ())}
                parts.append(part)
                order = (*order, *(position for pair in own_positions for position in pair))
        self.parts = nn.CellList(parts, auto_prefix=False)
        self.native = tuple(index in native for index in range(len(blocks)))
        self.order = order
        self.sources = tuple(
            order.index(position) if position in order else len(order) + position
            for position in range(parameters)
        )
        self.concat = ops.Concat()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        updates: tuple[Tensor, ...] = ()
        products: tuple[Tensor, ...] = ()
        for index in range(len(self.parts)):
            own_updates, own_products = self.parts[index](gradients)
            updates = (*updates, *own_updates)
            products = (*products, own_products)
        return updates, products[0] if len(products) == 1 else self.concat(products)


def native_form(block: Any) -> NativeForm | None:
    """Native form of a block's preconditioning, unless a subclass overrides ``precondition``.

    Args:
        block: the curvature block.

    Returns:
        The result of ``native_precondition``. None without a native form, if the weight has input channels
        first, or if ``precondition`` is overridden in a more derived class.
    """
    if block.weight_matrix.input_first:
        return None
    lineage = type(block).__mro__

    def depth(method: str) -> int:
        return next(level for level, owner in enumerate(lineage) if method in vars(owner))

    if depth("precondition") < depth("native_precondition"):
        return None
    form: NativeForm | None = block.native_precondition()
    return form
