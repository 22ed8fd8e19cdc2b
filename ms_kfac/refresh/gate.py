"""The gate: whether the coming step takes statistics."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor


class Gate:
    """A scalar Parameter that compiled graphs read, with a Python view of it for PyNative mode.

    The optimizer writes the Parameter at the end of every step. In graph mode it is an input of each tap's
    operator. In PyNative mode a tap asks :meth:`is_open`, which reads the Parameter back once a forward pass:
    the first tap that asks a second time has started a new pass.

    Args:
        name: name of the Parameter. It starts open, so that the first step takes statistics.
    """

    def __init__(self, name: str) -> None:
        self.parameter = Parameter(Tensor(1, ms.int32), name=name, requires_grad=False)
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
