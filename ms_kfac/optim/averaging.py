r"""Polyak averaging of the weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

_average = ops.MultitypeFuncGraph("polyak_average")


@_average.register("Tensor", "Tensor", "Tensor")
def _average_parameter(keep: Tensor, mean: Tensor, weight: Tensor) -> bool:
    kept = ops.cast(keep, mean.dtype)
    return ops.depend(True, ops.assign(mean, mean * kept + weight * (1.0 - kept)))


class PolyakAverage(nn.Cell):
    r"""Running average of the weights.

    .. math::
        \bar w_k = \xi_k \bar w_{k-1} + (1 - \xi_k) w_k, \qquad \xi_k = \min(1 - 1/k, \xi)

    (Martens & Grosse 2015, section 8, with :math:`\xi = \exp(-1/\tau)` for an average over about :math:`\tau`
    steps. The ramp of :math:`\xi_k` is not in the paper: early averages are plain means, without bias to the
    start.)

    Args:
        parameters: the weights.
        decay: :math:`\xi` in [0, 1).

    Inputs:
        - **step** (Tensor) - number of steps taken before this one, int32, shape (1,).
        - **weights** (tuple[Parameter]) - the weights after this step.
    """

    def __init__(self, parameters: ParameterTuple, decay: float) -> None:
        super().__init__(auto_prefix=False)
        self.decay = decay
        self.means = parameters.clone(prefix="polyak", init="same") if decay > 0.0 else ParameterTuple(())
        self.map_ = ops.Map()
        self.__dict__["weights"] = parameters

    def construct(self, step: Tensor, weights: tuple[Tensor, ...]) -> bool:
        if self.decay > 0.0:
            count = ops.cast(step, ms.float32).reshape(()) + 1.0
            keep = ops.minimum(1.0 - 1.0 / count, self.decay)
            self.map_(ops.partial(_average, keep), self.means, weights)
        return True

    def restart(self, loaded: Collection[str]) -> None:
        """Set the average of each weight that a checkpoint holds without its average to the weight.

        Args:
            loaded: names of the Parameters that were loaded.
        """
        for weight, mean in zip(self.weights, self.means):
            if weight.name in loaded and mean.name not in loaded:
                ops.assign(mean, weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the network's weights, and restore the weights at exit."""
        kept = [ms.Tensor(weight.asnumpy().copy(), weight.dtype) for weight in self.weights]
        try:
            for weight, mean in zip(self.weights, self.means):
                ops.assign(weight, ms.Tensor(mean.asnumpy(), mean.dtype))
            yield
        finally:
            for weight, value in zip(self.weights, kept):
                ops.assign(weight, value)
