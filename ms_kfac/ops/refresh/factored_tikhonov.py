r"""Factored Tikhonov regularization: the damping :math:`\lambda I` split between two Kronecker factors."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.ops.graph.element import element

# Smaller than any weight of a moving average. Makes 0 / 0 equal 0 before the first statistics.
SMALLEST_COUNT = 1e-30

_cast = ops.Cast()
_greater = ops.Greater()
_ones_like = ops.OnesLike()
_sqrt = ops.Sqrt()


def splits_by_traces(damping_split: str) -> bool:
    r"""Whether the option ``damping_split`` splits the damping by the traces.

    Args:
        damping_split: "pi" (:func:`pi_split`), or "none" for :math:`\pi = 1`.

    Returns:
        True for "pi", False for "none".

    Raises:
        ValueError: if ``damping_split`` is neither.
    """
    if damping_split not in ("pi", "none"):
        raise ValueError(f"damping_split must be one of 'pi', 'none', got {damping_split!r}")
    return damping_split == "pi"


def pi_split(
    trace_A: Tensor, dim_A: int, trace_G: Tensor, dim_G: int, damping: Tensor, *, by_traces: bool = True
) -> tuple[Tensor, Tensor]:
    r"""Split the damping between the two factors.

    .. math::
        A + \pi \sqrt{\lambda} I, \qquad G + \frac{\sqrt{\lambda}}{\pi} I, \qquad
        \pi = \sqrt{\frac{\mathrm{tr} A / \dim A}{\mathrm{tr} G / \dim G}}

    (Martens & Grosse 2015, section 6.3).

    If a trace is zero (dead inputs, or an output that the loss does not depend on), the scale is unknown.
    Then :math:`\pi = 1`.

    Args:
        trace_A: trace of A, any shape, float32.
        dim_A: dimension of A.
        trace_G: trace of G, same shape.
        dim_G: dimension of G.
        damping: :math:`\lambda`, scalar float32, positive.
        by_traces: False for :math:`\pi = 1`. Default: True.

    Returns:
        The damping of A and the damping of G, in the shape of the traces.
    """
    root = _sqrt(damping)
    if not by_traces:
        root = root * _ones_like(trace_A)
        return root, root
    # Arithmetic with a 0/1 mask instead of select: refreshes are compiled once per layer, so each operator
    # adds to the compile time.
    known = _cast(_greater(trace_A, 0.0), ms.float32) * _cast(_greater(trace_G, 0.0), ms.float32)
    unknown = 1.0 - known
    pi = _sqrt((trace_A * known * (1.0 / dim_A) + unknown) / (trace_G * known * (1.0 / dim_G) + unknown))
    return root * pi, root / pi


class FactoredTikhonov(nn.Cell):
    r"""Compute A and G from their sums, and split :math:`\lambda` between them (:func:`pi_split`).

    Args:
        dim_A: dimension of A.
        dim_G: dimension of G.
        groups: number of channel groups. With more than one, A and G have a leading group axis.
        splits: True to split the damping by the traces, False for :math:`\pi = 1`.

    Inputs:
        - **A_sum** (Tensor) - shape :math:`([g,] d_{in}, d_{in})`, float32.
        - **G_sum** (Tensor) - shape :math:`([g,] d_{out}, d_{out})`, float32.
        - **weights** (Tensor) - the weights of A and G, possibly followed by others, float32.
        - **damping** (Tensor) - :math:`\lambda`, scalar float32.

    Outputs:
        Tuple of A, G, the damping of A and the damping of G. The dampings are scalars, or :math:`(g, 1, 1)`.
        While A's weight is 0, before the first statistics, both are 1, so the damped factors are identity
        matrices.

    Platforms: CPU, GPU, Ascend (composed of ReduceSum and elementwise operators).
    """

    def __init__(self, dim_A: int, dim_G: int, *, groups: int, splits: bool) -> None:
        super().__init__(auto_prefix=False)
        self.dim_A = dim_A
        self.dim_G = dim_G
        self.splits = splits
        self.reduce_sum = ops.ReduceSum(keep_dims=groups > 1)
        self.cast = ops.Cast()
        self.equal = ops.Equal()
        self.maximum = ops.Maximum()
        self.eye = ops.Eye()

    def construct(
        self, A_sum: Tensor, G_sum: Tensor, weights: Tensor, damping: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        A_weight, G_weight = element(weights, 0), element(weights, 1)
        A = A_sum / self.maximum(A_weight, SMALLEST_COUNT)
        G = G_sum / self.maximum(G_weight, SMALLEST_COUNT)
        unseen = self.cast(self.equal(A_weight, 0.0), ms.float32)
        trace_A = self.reduce_sum(A * self.eye(self.dim_A, self.dim_A, ms.float32), (-2, -1))
        trace_G = self.reduce_sum(G * self.eye(self.dim_G, self.dim_G, ms.float32), (-2, -1))
        damping_A, damping_G = pi_split(
            trace_A, self.dim_A, trace_G, self.dim_G, damping, by_traces=self.splits
        )
        damping_A = damping_A + unseen * (1.0 - damping_A)
        damping_G = damping_G + unseen * (1.0 - damping_G)
        return A, G, damping_A, damping_G
