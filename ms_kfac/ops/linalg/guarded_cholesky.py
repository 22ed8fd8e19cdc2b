r"""Cholesky decomposition that never raises."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from numpy.typing import NDArray

from ms_kfac.user_warning import warn_user

_EPS = float(np.finfo(np.float32).eps)


class GuardedCholesky(nn.Cell):
    r"""Compute L with :math:`M = L L^{\top}`, or NaN if M holds NaN or Inf.

    MindSpore's kernel on CPUs raises for a matrix without such an L, and a compiled step that has raised once
    can't run again. NumPy's runs there instead. As the native kernels do, it goes on in float64, and adds
    damping in steps of ten until it succeeds, with a warning. Beyond the trace it gives up: L is NaN. With
    NaN in an inverse, the optimizer skips the step and names the layer.

    Inputs:
        - **matrix** (Tensor) - M, shape :math:`(d, d)`, or :math:`(g, d, d)` for a batch of g, float32.

    Outputs:
        Tensor of the same shape, float32.

    Platforms: CPU (NumPy), GPU (composed of Cholesky, IsFinite and Select; a finite M that is not positive
    definite is left to MindSpore's Cholesky).
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.on_cpu = ms.get_context("device_target") == "CPU"
        if self.on_cpu:
            self.cholesky = ops.Custom(
                decomposed, out_shape=lambda shape: shape, out_dtype=lambda dtype: dtype, func_type="pyfunc"
            )
            return
        self.cholesky = ops.Cholesky()
        self.isfinite = ops.IsFinite()
        self.reduce_all = ops.ReduceAll()
        self.eye = ops.Eye()
        self.nan = Tensor(float("nan"), ms.float32)

    def construct(self, matrix: Tensor) -> Tensor:
        if self.on_cpu:
            return self.cholesky(matrix)
        size = matrix.shape[-1]
        finite = self.reduce_all(self.isfinite(matrix))
        L = self.cholesky(ops.where(finite, matrix, self.eye(size, size, ms.float32)))
        return ops.where(finite, L, self.nan)


def decomposed(matrix: NDArray[Any]) -> NDArray[np.float32]:
    """Decompose a matrix, or each one of a batch, on the CPU.

    Args:
        matrix: M, shape (d, d) or (g, d, d), float32.

    Returns:
        L, or NaN, of the same shape.
    """
    if not np.isfinite(matrix).all():
        return np.full(matrix.shape, np.nan, np.float32)
    batch = matrix.reshape(-1, *matrix.shape[-2:])
    return np.stack([_decomposed(one) for one in batch]).reshape(matrix.shape).astype(np.float32)


def _decomposed(matrix: NDArray[Any]) -> NDArray[Any]:
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        precise = matrix.astype(np.float64)
    trace = abs(float(np.trace(precise)))
    damping = 0.0
    while True:
        try:
            L = np.linalg.cholesky(precise + damping * np.eye(len(precise)))
        except np.linalg.LinAlgError:
            if damping > trace:
                return np.full(matrix.shape, np.nan)
            damping = max(10 * damping, _EPS * trace, _EPS)
            continue
        if damping > 0:
            warn_user(
                "a damped factor is not positive definite in float32: it was inverted with more damping. "
                "Raise damping"
            )
        return L
