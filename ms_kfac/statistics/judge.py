"""Callback from the compiled commit to Python: does a batch belong to the delivered gradients?"""

from __future__ import annotations

import ctypes
from typing import Any, Callable

import numpy as np
from mindspore import ops
from numpy.typing import NDArray

from ms_kfac.kernels.callbacks import Handle, registered

Judge = Callable[[NDArray[np.float32]], NDArray[Any]]

# Numbers per layer that the judge gets, and that it returns (kernels/interface/judge.h).
TOLD, ANSWERS = 10, 4


@ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int64)
)
def _answer(number: int, layers: int, told: Any, answers: Any) -> None:
    numbers = np.ctypeslib.as_array(told, (layers, TOLD))
    written = np.ctypeslib.as_array(answers, (layers, ANSWERS))
    judge = registered(number)
    if judge is None:
        written[...] = np.stack([numbers[:, 8] > 0, numbers[:, 1], np.ones(layers), np.zeros(layers)], 1)
    else:
        written[...] = judge(numbers.copy())


def register_judge(judge: Judge) -> Handle[Judge]:
    """Register a judge with the kernels of the current device.

    Args:
        judge: function from float32 (layers, 10) to (layers, 4).

    Returns:
        The handle. It must exist as long as the kernel exists.
    """
    return Handle(judge, "ms_kfac_set_judge", _answer)


def fallback_judge(judge: Judge) -> Any:
    """Wrap a judge as an operator of a compiled step.

    Args:
        judge: as for :func:`register_judge`.

    Returns:
        An operator from float32 (layers, 10) to float32 (layers, 4).
    """

    def answers(told: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(judge(told), np.float32)

    return ops.Custom(
        answers,
        out_shape=lambda shape: [shape[0], ANSWERS],
        out_dtype=lambda dtype: dtype,
        func_type="pyfunc",
    )
