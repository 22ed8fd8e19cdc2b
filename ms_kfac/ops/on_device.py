"""Keeps Parameters that only branches of a compiled step use in the memory of the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, nn, ops


class OnDevice(nn.Cell):
    """Mentions Parameters outside of any branch, which costs nothing when the step runs.

    MindSpore places a Parameter where the kernels are that use it. Those inside a branch do not count: a
    Parameter that nothing else uses stays in the host's memory, and every kernel of the branch copies it to
    the device and back. That the step depends on it is mention enough, and launches nothing.

    Args:
        parameters: what branches use.

    Inputs:
        - **token** (Any) - anything that the step needs.

    Outputs:
        The token.

    Platforms: CPU, where it does nothing, GPU, Ascend.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.mentioned = ParameterTuple(parameters)
        self.mentions = len(self.mentioned) > 0 and ms.get_context("device_target") != "CPU"

    def construct(self, token: Any) -> Any:
        return ops.depend(token, self.mentioned) if self.mentions else token
