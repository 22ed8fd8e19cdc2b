r"""Precondition the gradients of many layers by inverses of low-rank factors (SKFAC)."""

from __future__ import annotations

from dataclasses import dataclass

from mindspore import Parameter

from ms_kfac.ops.step.layer_precondition import LayerPrecondition


@dataclass(frozen=True)
class SKFACForm:
    r"""A curvature block whose factors have inverses in one of two forms.

    Attributes:
        A_solver: one matrix per group. If A's rank R is below its number of rows d, the first R rows are Z,
            and the inverse is :math:`(I_d - Z^{\top} Z) / D`; otherwise the inverse itself.
        G_solver: the same for G.
        A_damping: D of A, one per group; 1 before the first refresh.
        G_damping: the same for G.
        solver_ranks: shape (2,), R of A and of G. At 0, the inverse is :math:`I_d / D`.
    """

    A_solver: Parameter
    G_solver: Parameter
    A_damping: Parameter
    G_damping: Parameter
    solver_ranks: Parameter

    def parameters(self) -> tuple[Parameter, ...]:
        """The Parameters that the kernel reads."""
        return (self.A_solver, self.G_solver, self.A_damping, self.G_damping, self.solver_ranks)


class SKFACPrecondition(LayerPrecondition):
    r"""Precondition the gradients of layers with SKFAC's blocks.

    .. math::
        [U_W\ U_b] = \hat G^{-1} [dW\ db]\, \hat A^{-1}, \qquad
        \hat A^{-1} = \frac1{D_A} \left[ I - Z_A^{\top} Z_A \right]
        \text{ or dense,} \quad \hat G^{-1} \text{ likewise}

    (Tang et al. 2021, "SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate
    Curvature"). A rank R takes 2 R d multiply-adds per column of dW instead of d^2. The kernel reads the
    ranks in each call. It multiplies in float32 whatever :func:`ms_kfac.kernels.set_precision` says, because
    I - Z^T Z of a gradient in the span of Z is a small difference. Arguments, inputs and outputs are those of
    :class:`ms_kfac.ops.step.layer_precondition.LayerPrecondition`. Its fallback runs where no kernel is
    available.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of MatMul, Sub, Div, Concat and
    Reshape).
    """

    operator = "skfac_precondition"
