"""Keeps Parameters that only branches of a compiled step use in the device's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, nn, ops


class OnDevice(nn.Cell):
    """Makes a step depend on Parameters outside of any branch, which launches nothing.

    MindSpore 2.10 places a Parameter where the kernels are that use it. Those inside a branch do not count: a
    Parameter that nothing else uses stays in the host's memory, and every kernel of the branch copies it to
    the device and back.

    Args:
        parameters: what branches use, and any others.

    Inputs:
        - **token** (Any) - anything that the step needs.

    Outputs:
        The token.

    Platforms: CPU, where it does nothing, GPU, Ascend.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.kept = ParameterTuple(parameters)
        self.keeps = len(self.kept) > 0 and ms.get_context("device_target") != "CPU"

    def construct(self, token: Any) -> Any:
        return ops.depend(token, self.kept) if self.keeps else token
