"""The gate: which statistics the next backward pass takes."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor

from ms_kfac.ops.statistics.layer_statistics import EVERYTHING


class Gate:
    """A scalar Parameter that compiled graphs read, with a Python method to read it in PyNative mode.

    The optimizer writes ``pending`` at the end of every step. With ``deferred=False``, taps read that
    Parameter, so the next backward pass takes statistics. With ``deferred=True``, taps read another
    Parameter. It stays closed until the pass over sampled targets, before which the training cell opens the
    gate by copying ``pending`` into it.

    In graph mode the Parameter is an input of each tap's operator. In PyNative mode a tap calls
    :meth:`is_open`, which reads the Parameter to the host once per forward pass. A second call by the same
    tap marks a new pass.

    Args:
        name: name of the Parameter. It is initially open, so that the first step takes statistics.
        deferred: whether the gate stays closed until the training cell opens it. Default: False.

    Attributes:
        parameter: the Parameter that taps read, scalar int32: 0, or a sum of the codes of
            ``ms_kfac.ops.statistics.layer_statistics``.
        pending: the Parameter that the optimizer writes.
    """

    def __init__(self, name: str, *, deferred: bool = False) -> None:
        self.pending = Parameter(Tensor(EVERYTHING, ms.int32), name=name, requires_grad=False)
        self.parameter = self.pending
        if deferred:
            self.parameter = Parameter(Tensor(0, ms.int32), name=f"{name}.opened", requires_grad=False)
        self._open = True
        self._asked: set[int] = set()

    def is_open(self, asker: object) -> bool:
        """Whether the gate is open for this forward pass, with one host read per pass.

        Args:
            asker: the tap that calls.

        Returns:
            True if this pass takes statistics.
        """
        if not self._asked or id(asker) in self._asked:
            self._open = bool(self.parameter.asnumpy() > 0)
            self._asked.clear()
        self._asked.add(id(asker))
        return self._open

    def expire(self) -> None:
        """Discard the cached value, because the Parameter has changed."""
        self._asked.clear()
