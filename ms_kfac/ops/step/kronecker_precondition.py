r"""Multiply the gradients of many layers by Kronecker-factored inverses from the left and the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mindspore import Parameter

from ms_kfac.ops.step.layer_precondition import LayerPrecondition


@dataclass(frozen=True)
class KroneckerForm:
    r"""A curvature block that preconditions by :math:`U = c\, L\, dW\, R`.

    Attributes:
        left: L: one matrix, or a stack of diagonal blocks and the last block of another size. With groups,
            one matrix per group.
        right: R, in the same form. If the layer has a bias, R has one more row than dW has columns.
        scale: c, one per group; None for 1.
    """

    left: tuple[Parameter, ...]
    right: tuple[Parameter, ...]
    scale: Parameter | None = None

    def parameters(self) -> tuple[Parameter, ...]:
        """The Parameters that the kernel reads."""
        return (*self.left, *self.right, *(() if self.scale is None else (self.scale,)))


class KroneckerPrecondition(LayerPrecondition):
    r"""Precondition the gradients of layers with Kronecker-factored inverses.

    .. math::
        [U_W\ U_b] = c\, G^{-1} [dW\ db]\, A^{-1}

    (Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature",
    section 4.2). c is 1 except for SMKFAC. THOR uses only diagonal blocks of the inverses. A grouped
    convolution has one such product per group. Arguments, inputs and outputs are those of
    :class:`ms_kfac.ops.step.layer_precondition.LayerPrecondition`. Its fallback runs where no kernel is
    available.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of MatMul, Concat and Reshape).
    """

    operator = "kronecker_precondition"

    def attributes(self, forms: Sequence[KroneckerForm]) -> dict[str, list[int]]:
        return {
            "left_arrays": [len(form.left) for form in forms],
            "right_arrays": [len(form.right) for form in forms],
            "scales": [int(form.scale is not None) for form in forms],
        }
