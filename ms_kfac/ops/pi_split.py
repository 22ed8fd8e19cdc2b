r"""The split of :math:`\lambda I` over two Kronecker factors."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

_cast = ops.Cast()
_greater = ops.Greater()
_sqrt = ops.Sqrt()


def pi_split(
    trace_A: Tensor, dim_A: int, trace_G: Tensor, dim_G: int, damping: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Damping of each factor.

    .. math::
        A + \pi \sqrt{\lambda} I, \qquad G + \frac{\sqrt{\lambda}}{\pi} I, \qquad
        \pi = \sqrt{\frac{\mathrm{tr} A / \dim A}{\mathrm{tr} G / \dim G}}

    (Martens & Grosse 2015, section 6.3).

    A factor whose trace is zero (dead inputs, or an output that the loss does not reach) says nothing of the
    scale: then :math:`\pi = 1`.

    Args:
        trace_A: trace of A, any shape, float32.
        dim_A: dimension of A.
        trace_G: trace of G, same shape.
        dim_G: dimension of G.
        damping: :math:`\lambda`, scalar float32, positive.

    Returns:
        The two numbers added to the diagonals of A and of G, shaped like the traces.
    """
    # Arithmetic with a 0/1 mask in the place of select: a layer's refresh is compiled once a layer, so every
    # operator here counts.
    known = _cast(_greater(trace_A, 0.0), ms.float32) * _cast(_greater(trace_G, 0.0), ms.float32)
    unknown = 1.0 - known
    pi = _sqrt((trace_A * known * (1.0 / dim_A) + unknown) / (trace_G * known * (1.0 / dim_G) + unknown))
    root = _sqrt(damping)
    return root * pi, root / pi
