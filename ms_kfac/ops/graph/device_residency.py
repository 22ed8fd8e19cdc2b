"""Keep Parameters in device memory if only branches of a compiled step use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, nn, ops


class DeviceResidency(nn.Cell):
    """Make a step depend on Parameters outside any branch. This launches no kernel.

    MindSpore 2.10 places a Parameter in the memory of the kernels that use it, but ignores kernels inside a
    branch. A Parameter that only a branch uses stays in host memory. Each kernel of the branch then copies it
    to the device and back.

    Args:
        parameters: Parameters used in branches, possibly with others.

    Inputs:
        - **token** (Any) - any value that the step uses.

    Outputs:
        The token.

    Platforms: CPU (no effect), GPU, Ascend.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.kept = ParameterTuple(parameters)
        self.keeps = len(self.kept) > 0 and ms.get_context("device_target") != "CPU"

    def construct(self, token: Any) -> Any:
        return ops.depend(token, self.kept) if self.keeps else token
