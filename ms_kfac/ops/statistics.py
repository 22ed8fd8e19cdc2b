"""What a tap needs of a statistics operator."""

from __future__ import annotations

from typing import Any, Callable

import mindspore as ms
from mindspore import nn


class StatisticsOperator(nn.Cell):
    """Base of the operators that add one batch to a layer's statistics, gated by a Parameter.

    Inputs of a subclass: x, dout, the gate (scalar int32 Parameter) and the four Parameters that it writes in
    place.

    Layers of the same geometry share one operator object, so that PyNative mode compiles it once a shape, not
    once a layer.

    Attributes:
        as_graph: the operator as one compiled graph, for PyNative mode.
    """

    as_graph: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.__dict__["as_graph"] = ms.jit(self.construct)
