r"""Let the past of statistics fade: multiply sums and their weights by the same factor, when it is due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.kernels.operator import is_native, native_operator


class Decay(nn.Cell):
    r"""Multiply Parameters in place, :math:`S_i \leftarrow d_{o(i)} S_i`.

    Args:
        parameters: what fades, float32.
        owners: o(i), for each Parameter the element of ``factors`` that it is multiplied with.

    Inputs:
        - **due** (Tensor) - scalar int32; with 0 nothing happens.
        - **factors** (Tensor) - d, float32, shape (k,).

    Outputs:
        bool, True.

    Platforms: CPU (native or composed), GPU, Ascend (composed of Mul and Assign).
    """

    def __init__(self, parameters: Sequence[Parameter], owners: Sequence[int]) -> None:
        super().__init__(auto_prefix=False)
        self.faded = ParameterTuple(parameters)
        self.owners = tuple(owners)
        self.exists = len(self.owners) > 0
        self.native = is_native("decay")
        self.kernel: Any = native_operator("decay", owners=list(owners)) if self.native else None
        self.assign = ops.Assign()

    def construct(self, due: Tensor, factors: Tensor) -> bool:
        if self.exists:
            if self.native:
                self.kernel(due, factors, *self.faded)
            elif due > 0:
                for index in range(len(self.faded)):
                    parameter = self.faded[index]
                    self.assign(parameter, parameter * factors[self.owners[index]])
        return True
