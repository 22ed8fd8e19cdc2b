r"""Let the past of statistics fade: multiply sums and their weights by one factor, when it is due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.kernels.operator import is_native, native_operator


class Decay(nn.Cell):
    r"""Multiply Parameters by the same number in place, :math:`S \leftarrow d S`.

    Args:
        parameters: what fades, float32.

    Inputs:
        - **due** (Tensor) - scalar int32; with 0 nothing happens.
        - **factor** (Tensor) - d, scalar float32.

    Outputs:
        bool, True.

    Platforms: CPU (native or composed), GPU, Ascend (composed of Mul and Assign).
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.faded = ParameterTuple(parameters)
        self.native = is_native("decay")
        self.kernel: Any = native_operator("decay") if self.native else None
        self.assign = ops.Assign()

    def construct(self, due: Tensor, factor: Tensor) -> bool:
        if self.native:
            self.kernel(due, factor, *self.faded)
        elif due > 0:
            for parameter in self.faded:
                self.assign(parameter, parameter * factor)
        return True
