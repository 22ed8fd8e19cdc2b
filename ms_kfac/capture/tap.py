"""The tap: identity in the forward pass, statistics in the backward pass."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.statistics import StatisticsOperator
from ms_kfac.refresh.gate import Gate


class SampleCounter(nn.Cell):
    """Counts the samples of a step's backward passes, for losses that are sums.

    Args:
        name: name of the Parameter that holds the count; the optimizer sets it back to zero after every step.
    """

    def __init__(self, name: str) -> None:
        super().__init__(auto_prefix=False)
        self.samples = Parameter(Tensor(0.0, ms.float32), name=name, requires_grad=False)
        self.assign_add = ops.AssignAdd()
        self.shape = ops.Shape()

    def construct(self, x: Tensor, samples: Parameter) -> bool:
        self.assign_add(samples, float(self.shape(x)[0]))
        return True


class IdentityBase(nn.Cell):
    """What the identities of taps are made of.

    Args:
        statistics: the block's statistics operator.
    """

    def __init__(self, statistics: StatisticsOperator) -> None:
        super().__init__(auto_prefix=False)
        self.statistics = statistics.within_graph()
        self.input_type = statistics.input_type
        self.gradient_type = ms.float32
        self.cast = ops.Cast()
        self.depend = ops.Depend()
        self.zeros_like = ops.ZerosLike()


class _Identity(IdentityBase):
    """Passes y on; its ``bprop`` meets x and dout together.

    The Parameters come in as inputs: used as attributes inside ``bprop`` they do not compile, and neither do
    a starred argument or a tuple of them. Hence a class for each number of them that a block may have.

    Statistics are of float32, whatever the layer computes in; dout goes on in the type that it came in. An
    input is cast here and not in the forward pass, which would keep a copy of it until now.

    The gate is read when dout is there: a compiled step may write it between two passes, and would else be
    free to read it at any time.

    To the compiler the Parameters are values here, and a kernel's write to them is not seen: what a graph
    reads of them before a backward pass it may read after it, unless it has stored it (``ops.assign``).
    Nothing does so; the optimizer reads statistics behind the write with which it counts them.
    """

    def construct(
        self,
        x: Tensor,
        y: Tensor,
        gate: Parameter,
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
        s1: Parameter,
        s2: Parameter,
        s3: Parameter,
        s4: Parameter,
        out: Tensor,
        dout: Tensor,
    ) -> tuple[Tensor, ...]:
        inputs, gradients = self.cast(x, self.input_type), self.cast(dout, self.gradient_type)
        self.statistics(inputs, gradients, self.depend(gate, dout), s1, s2, s3, s4)
        # Nobody asks for gradients of the Parameters; zeros of their shapes would have to be compiled.
        return self.zeros_like(x), dout, gate, s1, s2, s3, s4


class _IdentityOfSix(IdentityBase):
    """The same for six Parameters."""

    def construct(
        self,
        x: Tensor,
        y: Tensor,
        gate: Parameter,
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
        self.statistics(inputs, gradients, self.depend(gate, dout), s1, s2, s3, s4, s5, s6)
        return self.zeros_like(x), dout, gate, s1, s2, s3, s4, s5, s6


_IDENTITIES: dict[int, Any] = {4: _Identity, 6: _IdentityOfSix}


class _CountingIdentity(nn.Cell):
    """Passes y on; its ``bprop`` counts the samples of x."""

    def __init__(self, counter: SampleCounter) -> None:
        super().__init__(auto_prefix=False)
        self.counter = counter

    def construct(self, x: Tensor, y: Tensor, samples: Parameter) -> Tensor:
        return y

    def bprop(
        self, x: Tensor, y: Tensor, samples: Parameter, out: Tensor, dout: Tensor
    ) -> tuple[Tensor, ...]:
        self.counter(x, samples)
        return ops.zeros_like(x), dout, ops.zeros_like(samples)


class Tap(nn.Cell):
    """Watches one linear map y = f(x): hands x and the gradient of y to the layer's statistics operator.

    There are two ways in. A graph that is being compiled parses :meth:`construct`, where a custom ``bprop``
    holds the operator and the gate Parameter decides inside it. PyNative mode calls the object: with the gate
    closed it returns y itself, at no cost; with the gate open it hooks y's gradient and runs the same
    operator, compiled.

    Args:
        statistics: the block's statistics operator.
        state: the four or six Parameters that it reads and writes.
        gate: whether the coming step takes statistics.
        counter: counts samples on every step, gate open or not; None where nobody asks.
    """

    identities = _IDENTITIES

    def __init__(
        self,
        statistics: StatisticsOperator,
        state: tuple[Parameter, ...],
        gate: Gate,
        counter: SampleCounter | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.identity = self.identities[len(state)](statistics)
        self.statistics = statistics
        self.stop_gradient = ops.StopGradient()
        self.carries_six = len(state) == 6
        self.counts = counter is not None
        self.counting_identity: Any = None if counter is None else _CountingIdentity(counter)
        # Kept out of the Cell's registries: the optimizer owns these Parameters, and the network must not
        # list them.
        self.__dict__["gate"] = gate
        self.__dict__["gate_parameter"] = gate.parameter
        self.__dict__["state"] = tuple(state)
        self.__dict__["counter"] = counter
        self.__dict__["samples"] = None if counter is None else counter.samples
        self.__dict__["compiled_statistics"] = statistics.as_graph

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if ms.get_context("mode") == ms.GRAPH_MODE:
            return super().__call__(x, y)
        is_open = self.gate.is_open(self)
        if not is_open and self.counter is None:
            return y
        input_of_call = ops.stop_gradient(x)

        def record(dout: Tensor) -> Tensor:
            if is_open:
                # A copy: a compiled function in MindSpore 2.10 reads a view from the start of its storage.
                gradients = self.as_taken(dout)
                self.compiled_statistics(input_of_call.copy(), gradients, self.gate_parameter, *self.state)
            if self.counter is not None:
                self.counter(input_of_call, self.samples)
            return dout

        try:
            y.register_hook(record)
        except RuntimeError as error:
            # Outside a gradient there may be nothing to hook; nobody asks for statistics then.
            if "requires grad" not in str(error):
                raise
        return y

    def as_taken(self, dout: Tensor) -> Tensor:
        """A copy of dout for the operator, in PyNative mode."""
        return dout.copy()

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        watched = self.stop_gradient(x)
        self.statistics.expect(watched, y)
        if self.counts:
            y = self.counting_identity(watched, y, self.samples)
        gate = self.gate_parameter
        if self.carries_six:
            s1, s2, s3, s4, s5, s6 = self.state
            return self.identity(watched, y, gate, s1, s2, s3, s4, s5, s6)
        s1, s2, s3, s4 = self.state
        return self.identity(watched, y, gate, s1, s2, s3, s4)


class PlainTap(Tap):
    """A tap of four Parameters that neither counts nor tells its operator of shapes: less to compile a layer.

    Args:
        statistics: the block's statistics operator.
        state: the four Parameters.
        gate: whether the coming step takes statistics.
    """

    def __init__(self, statistics: StatisticsOperator, state: tuple[Parameter, ...], gate: Gate) -> None:
        super().__init__(statistics, state, gate)
        for name, parameter in zip(("s1", "s2", "s3", "s4"), state):
            self.__dict__[name] = parameter

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        watched = self.stop_gradient(x)
        return self.identity(watched, y, self.gate_parameter, self.s1, self.s2, self.s3, self.s4)


def create_tap(
    statistics: StatisticsOperator,
    state: tuple[Parameter, ...],
    gate: Gate,
    counter: SampleCounter | None = None,
) -> Tap:
    """The tap for an operator, as plain as it can be.

    Args:
        statistics: the block's statistics operator.
        state: the four or six Parameters that it reads and writes.
        gate: whether the coming step takes statistics.
        counter: counts samples on every step, gate open or not; None where nobody asks.

    Returns:
        The tap.
    """
    plain = type(statistics).expect is StatisticsOperator.expect and counter is None and len(state) == 4
    return PlainTap(statistics, state, gate) if plain else Tap(statistics, state, gate, counter)
