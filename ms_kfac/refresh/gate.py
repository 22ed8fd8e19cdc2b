"""The gate: whether the coming pass takes statistics, and which."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor

from ms_kfac.ops.statistics import EVERYTHING


class Gate:
    """A scalar Parameter that compiled graphs read, with a Python view of it for PyNative mode.

    The optimizer writes ``pending`` at the end of every step. With ``deferred=False`` that is the Parameter
    which taps read, so the coming backward pass takes statistics. With ``deferred=True`` taps read another
    one, which stays closed until somebody copies ``pending`` into it: the pass over sampled targets.

    In graph mode the Parameter is an input of each tap's operator. In PyNative mode a tap asks
    :meth:`is_open`, which reads the Parameter back once a forward pass: the first tap that asks a second time
    has started a new pass.

    Args:
        name: name of the Parameter. It starts open, so that the first step takes statistics.
        deferred: whether taps wait for somebody to open the gate.

    Attributes:
        parameter: what taps read, scalar int32: 0 or a sum of the codes of ``ms_kfac.ops.statistics``.
        pending: what the optimizer writes.
    """

    def __init__(self, name: str, *, deferred: bool = False) -> None:
        self.pending = Parameter(Tensor(EVERYTHING, ms.int32), name=name, requires_grad=False)
        self.parameter = self.pending
        if deferred:
            self.parameter = Parameter(Tensor(0, ms.int32), name=f"{name}.opened", requires_grad=False)
        self._open = True
        self._asked: set[int] = set()

    def is_open(self, asker: object) -> bool:
        """Whether the gate is open for this forward pass, as one host read a pass.

        Args:
            asker: the tap that asks.

        Returns:
            True when this pass's statistics are wanted.
        """
        if not self._asked or id(asker) in self._asked:
            self._open = bool(self.parameter.asnumpy() > 0)
            self._asked.clear()
        self._asked.add(id(asker))
        return self._open

    def expire(self) -> None:
        """Forget the value read, because the Parameter has changed."""
        self._asked.clear()
