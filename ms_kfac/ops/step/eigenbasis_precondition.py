r"""Precondition the gradients of many layers in the eigenbases of their Kronecker factors (EKFAC)."""

from __future__ import annotations

from dataclasses import dataclass

from mindspore import Parameter

from ms_kfac.ops.step.layer_precondition import LayerPrecondition


@dataclass(frozen=True)
class EigenbasisForm:
    r"""A curvature block that is diagonal in a Kronecker-factored eigenbasis.

    Attributes:
        Q_A: eigenbasis of A, one matrix per group.
        Q_G: eigenbasis of G, one matrix per group.
        s_sum: sums of the second moments in that basis.
        counts: shape (3,). The last element divides ``s_sum``; if it is 0, the moments are
            :math:`S_G S_A^{\top}`.
        S_A: eigenvalues of A.
        S_G: eigenvalues of G.
        damping: :math:`\lambda`, scalar.
    """

    Q_A: Parameter
    Q_G: Parameter
    s_sum: Parameter
    counts: Parameter
    S_A: Parameter
    S_G: Parameter
    damping: Parameter

    def parameters(self) -> tuple[Parameter, ...]:
        """The Parameters that the kernel reads."""
        return (self.Q_A, self.Q_G, self.s_sum, self.counts, self.S_A, self.S_G, self.damping)


class EigenbasisPrecondition(LayerPrecondition):
    r"""Precondition the gradients of layers with eigenbasis blocks.

    .. math::
        [U_W\ U_b] = Q_G \left[\frac{Q_G^{\top} [dW\ db]\, Q_A}{s + \lambda}\right] Q_A^{\top}

    (George et al. 2018, "Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis").
    Arguments, inputs and outputs are those of :class:`ms_kfac.ops.step.layer_precondition.LayerPrecondition`.
    Its fallback runs where no kernel is available.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of MatMul, Div, Concat and Reshape).
    """

    operator = "eigenbasis_precondition"
