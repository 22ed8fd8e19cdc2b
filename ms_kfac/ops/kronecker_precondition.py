r"""Multiply the gradients of many layers by Kronecker-factored inverses, from two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mindspore import Parameter

from ms_kfac.ops.layer_precondition import LayerPrecondition


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

    def parameters(self) -> tuple[Parameter, ...]:
        """The Parameters that the kernel reads."""
        return (*self.left, *self.right, *(() if self.scale is None else (self.scale,)))


class KroneckerPrecondition(LayerPrecondition):
    r"""Preconditioned gradients of layers whose blocks multiply from two sides.

    .. math::
        [U_W\ U_b] = c\, G^{-1} [dW\ db]\, A^{-1}

    (Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature",
    section 4.2), with c = 1 but for SMKFAC, and diagonal blocks alone for THOR; one such product a group for
    grouped convolutions. Arguments, inputs and outputs are those of
    :class:`ms_kfac.ops.layer_precondition.LayerPrecondition`, whose composed form runs where there is no
    kernel.

    Platforms: CPU, GPU (native or composed), Ascend (composed of MatMul, Concat and Reshape).
    """

    operator = "kronecker_precondition"

    def attributes(self, forms: Sequence[TwoSided]) -> dict[str, list[int]]:
        return {
            "left_arrays": [len(form.left) for form in forms],
            "right_arrays": [len(form.right) for form in forms],
            "scales": [int(form.scale is not None) for form in forms],
        }
