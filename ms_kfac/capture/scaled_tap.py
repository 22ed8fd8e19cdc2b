"""Taps for a loss scale that changes during training: they take it out of what statistics get."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from ms_kfac.capture.tap import IdentityBase, SampleCounter, Tap
from ms_kfac.ops.statistics import StatisticsOperator
from ms_kfac.refresh.gate import Gate


class _ScaledBase(IdentityBase):
    """The plain taps' base, with a product.

    Args:
        statistics: the block's statistics operator.
    """

    def __init__(self, statistics: StatisticsOperator) -> None:
        super().__init__(statistics)
        self.mul = ops.Mul()


class _ScaledIdentity(_ScaledBase):
    """As the plain tap's; multiplies dout by a Parameter on its way to the statistics, and nowhere else.

    The factor is read when dout is there, for the reason for which the gate is.
    """

    def construct(
        self,
        x: Tensor,
        y: Tensor,
        gate: Parameter,
        factor: Parameter,
        s1: Parameter,
        s2: Parameter,
        s3: Parameter,
        s4: Parameter,
    ) -> Tensor:
        return y

    def bprop(
        self,
        x: Tensor,
        y: Tensor,
        gate: Parameter,
        factor: Parameter,
        s1: Parameter,
        s2: Parameter,
        s3: Parameter,
        s4: Parameter,
        out: Tensor,
        dout: Tensor,
    ) -> tuple[Tensor, ...]:
        inputs, gradients = self.cast(x, self.input_type), self.cast(dout, self.gradient_type)
        gradients = self.mul(gradients, self.depend(factor, dout))
        self.statistics(inputs, gradients, self.depend(gate, dout), s1, s2, s3, s4)
        return self.zeros_like(x), dout, gate, factor, s1, s2, s3, s4


class _ScaledIdentityOfSix(_ScaledBase):
    """The same for six Parameters."""

    def construct(
        self,
        x: Tensor,
        y: Tensor,
        gate: Parameter,
        factor: Parameter,
        s1: Parameter,
        s2: Parameter,
        s3: Parameter,
        s4: Parameter,
        s5: Parameter,
        s6: Parameter,
    ) -> Tensor:
        return y

    def bprop(
        self,
        x: Tensor,
        y: Tensor,
        gate: Parameter,
        factor: Parameter,
        s1: Parameter,
        s2: Parameter,
        s3: Parameter,
        s4: Parameter,
        s5: Parameter,
        s6: Parameter,
        out: Tensor,
        dout: Tensor,
    ) -> tuple[Tensor, ...]:
        inputs, gradients = self.cast(x, self.input_type), self.cast(dout, self.gradient_type)
        gradients = self.mul(gradients, self.depend(factor, dout))
        self.statistics(inputs, gradients, self.depend(gate, dout), s1, s2, s3, s4, s5, s6)
        return self.zeros_like(x), dout, gate, factor, s1, s2, s3, s4, s5, s6


_IDENTITIES: dict[int, Any] = {4: _ScaledIdentity, 6: _ScaledIdentityOfSix}


class ScaledTap(Tap):
    """A tap for losses that are scaled by a number that changes: statistics get dout times a factor.

    Args:
        statistics: the block's statistics operator.
        state: the four or six Parameters that it reads and writes.
        gate: whether the coming step takes statistics.
        counter: counts samples on every step, gate open or not; None where nobody asks.
        factor: scalar float32 Parameter, one over the present loss scale.
    """

    identities = _IDENTITIES

    def __init__(
        self,
        statistics: StatisticsOperator,
        state: tuple[Parameter, ...],
        gate: Gate,
        counter: SampleCounter | None,
        factor: Parameter,
    ) -> None:
        super().__init__(statistics, state, gate, counter)
        self.__dict__["factor"] = factor

    def as_taken(self, dout: Tensor) -> Tensor:
        """The operator's dout in PyNative mode, without the loss scale."""
        return ops.cast(dout, ms.float32) * self.factor

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        watched = self.stop_gradient(x)
        self.statistics.expect(watched, y)
        if self.counts:
            y = self.counting_identity(watched, y, self.samples)
        gate, factor = self.gate_parameter, self.factor
        if self.carries_six:
            s1, s2, s3, s4, s5, s6 = self.state
            return self.identity(watched, y, gate, factor, s1, s2, s3, s4, s5, s6)
        s1, s2, s3, s4 = self.state
        return self.identity(watched, y, gate, factor, s1, s2, s3, s4)
