"""MindSpore 2.10 with NumPy 2, which machines for PyTorch have. MindSpore was built for NumPy 1."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore.dataset.engine import datasets_user_defined


class NumPy1:
    """NumPy whose ``array(..., copy=False)`` copies if it must, as in NumPy 1."""

    def __getattr__(self, name: str) -> Any:
        """What is the same in both."""
        return getattr(np, name)

    @staticmethod
    def array(values: Any, *, copy: bool = True) -> np.ndarray:
        """Makes an array."""
        return np.array(values) if copy else np.asarray(values)


def adapt() -> str:
    """Lets MindSpore run with NumPy 2. With NumPy 1 it changes no result.

    Returns:
        The error of the first scalar that MindSpore parses. It comes once, and only with NumPy 2.
    """
    datasets_user_defined.np = NumPy1()
    try:
        (ms.Tensor(np.ones(2, np.float32)) * 0.5).asnumpy()
    except SystemError as error:
        return str(error)
    return ""
