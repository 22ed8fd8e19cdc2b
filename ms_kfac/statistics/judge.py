"""How a commit, inside a compiled step, asks Python whether a batch belongs to the delivered gradients."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from typing import Any, Callable

import numpy as np
from mindspore import ops
from numpy.typing import NDArray

from ms_kfac.kernels.operator import present_library

Judge = Callable[[NDArray[np.float32]], NDArray[Any]]

# Numbers of a layer that the judge is told, and those that it answers (kernels/interface/judge.h).
TOLD, ANSWERS = 9, 2

_PROTOTYPE = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int64)
)
_numbers = itertools.count(1)
_handles: weakref.WeakValueDictionary[int, JudgeHandle] = weakref.WeakValueDictionary()


class JudgeHandle:
    """A judge that kernels know by a number, for as long as this object lives.

    Args:
        judge: what answers.

    Attributes:
        number: positive.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.number = next(_numbers)
        _handles[self.number] = self


def _answer(number: int, layers: int, told: Any, answers: Any) -> None:
    numbers = np.ctypeslib.as_array(told, (layers, TOLD))
    written = np.ctypeslib.as_array(answers, (layers, ANSWERS))
    handle = _handles.get(number)
    if handle is None:
        # The optimizer is gone; its last step may still run.
        written[:, 0], written[:, 1] = numbers[:, -1] > 0, numbers[:, 1]
    else:
        written[...] = handle.judge(numbers.copy())


# Kept forever: libraries hold its address.
_callback = _PROTOTYPE(_answer)


def register_judge(judge: Judge) -> JudgeHandle:
    """Make a judge known to the kernels of the present device.

    Args:
        judge: called with float32 (layers, 9), returns (layers, 2); from any thread.

    Returns:
        Its handle, to be kept as long as the kernel is.
    """
    library = present_library().handle
    if library is not None:
        library.ms_kfac_set_judge(_callback)
    return JudgeHandle(judge)


def fallback_judge(judge: Judge) -> Any:
    """The judge as an operator of a compiled step.

    Args:
        judge: as of :func:`register_judge`.

    Returns:
        An operator from float32 (layers, 9) to float32 (layers, 2).
    """

    def answers(told: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(judge(told), np.float32)

    return ops.Custom(
        answers,
        out_shape=lambda shape: [shape[0], ANSWERS],
        out_dtype=lambda dtype: dtype,
        func_type="pyfunc",
    )
