"""The tap: identity in the forward pass, statistics in the backward pass."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.element import element
from ms_kfac.ops.statistics import PERIOD, StatisticsOperator
from ms_kfac.refresh.gate import Gate


class SampleCounter(nn.Cell):
    """Counts the samples of a step's backward passes, for losses that are sums and for lone Parameters.

    As with staged statistics, a pass replaces the count of the pass before, unless both are micro-batches of
    one step: so passes of a dropped step, or of another objective, do not count. How many passes make up a
    step says the record of the layer at which they are counted.

    Args:
        name: name of the Parameter: samples of the staged batch, those of all passes since the optimizer's
            last step, the number of these passes, and the period by which the first was counted.
    """

    def __init__(self, name: str) -> None:
        super().__init__(auto_prefix=False)
        self.samples = Parameter(Tensor([0.0, 0.0, 0.0, 1.0], ms.float32), name=name, requires_grad=False)
        self.assign = ops.Assign()
        self.shape = ops.Shape()
        self.stack = ops.Stack()
        self.cast = ops.Cast()

    def construct(self, x: Tensor, samples: Parameter, record: Parameter) -> bool:
        period = ops.maximum(element(record, PERIOD), 1.0)
        new = float(self.shape(x)[0])
        passes = element(samples, 2)
        joined = element(samples, 0) * self.cast(passes % period > 0.5, ms.float32) + new
        everything = element(samples, 1) + new
        self.assign(samples, self.stack((joined, everything, passes + 1.0, period)))
        return True

    def take(self, after: Tensor, record: Parameter) -> Tensor:
        """The samples of this step, 0 where no pass was counted; the next step counts anew."""
        period = ops.maximum(element(record, PERIOD), 1.0)
        # The first commit has found out that several passes make up a step, after they were counted.
        known = self.cast(ops.equal(period, element(self.samples, 3)), ms.float32)
        counted = element(self.samples, 0) * known + element(self.samples, 1) * (1.0 - known)
        nothing = ops.depend(self.samples * 0.0, (after, counted))
        return ops.depend(counted, self.assign(self.samples, nothing))


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


class _IdentityOfTwo(IdentityBase):
    """Passes y on; its ``bprop`` meets x and dout together.

    The Parameters come in as inputs: used as attributes inside ``bprop`` they do not compile, and neither do
    a starred argument or a tuple of them. Hence a class for each number of them that a block may have.

    Statistics are of float32, whatever the layer computes in; dout goes on in the type that it came in. An
    input is cast here and not in the forward pass, which would keep a copy of it until now.

    The gate is read when dout is there: a compiled step may write it between two passes, and would otherwise
    be free to read it at any time.

    To the compiler the Parameters are values here, and a kernel's write to them is not seen. Only the commit
    reads them, behind the gradients.
    """

    def construct(self, x: Tensor, y: Tensor, gate: Parameter, s1: Parameter, s2: Parameter) -> Tensor:
        return y

    def bprop(
        self,
        x: Tensor,
        y: Tensor,
        gate: Parameter,
        s1: Parameter,
        s2: Parameter,
        out: Tensor,
        dout: Tensor,
    ) -> tuple[Tensor, ...]:
        inputs, gradients = self.cast(x, self.input_type), self.cast(dout, self.gradient_type)
        self.statistics(inputs, gradients, self.depend(gate, dout), s1, s2)
        # Nothing uses gradients of the Parameters; zeros of their shapes would have to be compiled.
        return self.zeros_like(x), dout, gate, s1, s2


class _IdentityOfThree(IdentityBase):
    """The same for three Parameters."""

    def construct(
        self,
        x: Tensor,
        y: Tensor,
        gate: Parameter,
        s1: Parameter,
        s2: Parameter,
        s3: Parameter,
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
        out: Tensor,
        dout: Tensor,
    ) -> tuple[Tensor, ...]:
        inputs, gradients = self.cast(x, self.input_type), self.cast(dout, self.gradient_type)
        self.statistics(inputs, gradients, self.depend(gate, dout), s1, s2, s3)
        # Nothing uses gradients of the Parameters; zeros of their shapes would have to be compiled.
        return self.zeros_like(x), dout, gate, s1, s2, s3


class _IdentityOfFour(IdentityBase):
    """The same for four Parameters."""

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
        # Nothing uses gradients of the Parameters; zeros of their shapes would have to be compiled.
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
        # Nothing uses gradients of the Parameters; zeros of their shapes would have to be compiled.
        return self.zeros_like(x), dout, gate, s1, s2, s3, s4, s5, s6


_IDENTITIES: dict[int, Any] = {2: _IdentityOfTwo, 3: _IdentityOfThree, 4: _IdentityOfFour, 6: _IdentityOfSix}


class _CountingIdentity(nn.Cell):
    """Passes y on; its ``bprop`` counts the samples of x."""

    def __init__(self, counter: SampleCounter) -> None:
        super().__init__(auto_prefix=False)
        self.counter = counter

    def construct(self, x: Tensor, y: Tensor, samples: Parameter, record: Parameter) -> Tensor:
        return y

    def bprop(
        self, x: Tensor, y: Tensor, samples: Parameter, record: Parameter, out: Tensor, dout: Tensor
    ) -> tuple[Tensor, ...]:
        self.counter(x, samples, record)
        return ops.zeros_like(x), dout, samples, record


class Tap(nn.Cell):
    """Watches one linear map y = f(x): hands x and the gradient of y to the layer's statistics operator.

    There are two ways in. A graph that is being compiled parses :meth:`construct`, where a custom ``bprop``
    holds the operator and the gate Parameter decides inside it. PyNative mode calls the object: with the gate
    closed it returns y itself, at no cost; with the gate open it hooks y's gradient and runs the same
    operator, compiled.

    Args:
        statistics: the block's statistics operator.
        staged: the two, three, four or six Parameters that it reads and writes.
        gate: whether the coming step takes statistics.
        counter: counts samples on every step, gate open or not; None where the count is unused.
        record: the one among ``staged``, which the counter reads; None without a counter.

    Raises:
        TypeError: if there is another number of them.
    """

    def __init__(
        self,
        statistics: StatisticsOperator,
        staged: tuple[Parameter, ...],
        gate: Gate,
        counter: SampleCounter | None = None,
        record: Parameter | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        if len(staged) not in _IDENTITIES:
            raise TypeError(f"a block's staged must hold 2, 3, 4 or 6 Parameters, got {len(staged)}")
        self.identity = _IDENTITIES[len(staged)](statistics)
        self.statistics = statistics
        self.stop_gradient = ops.StopGradient()
        self.carried = len(staged)
        # Operators that do not ask for shapes early need no call of it compiled.
        self.expects = type(statistics).expect is not StatisticsOperator.expect
        self.counts = counter is not None
        self.counting_identity: Any = None if counter is None else _CountingIdentity(counter)
        # Kept out of the Cell's registries: the optimizer owns these Parameters, and the network must not
        # list them.
        self.__dict__["gate"] = gate
        self.__dict__["gate_parameter"] = gate.parameter
        self.__dict__["staged"] = tuple(staged)
        self.__dict__["counter"] = counter
        self.__dict__["samples"] = None if counter is None else counter.samples
        self.__dict__["record"] = record
        self.__dict__["compiled_statistics"] = statistics.as_graph
        for index, parameter in enumerate(staged):
            self.__dict__[f"s{index + 1}"] = parameter

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if ms.get_context("mode") == ms.GRAPH_MODE:
            return super().__call__(x, y)
        is_open = self.gate.is_open(self)
        if not is_open and self.counter is None:
            return y
        input_of_call = ops.stop_gradient(x)

        def take(dout: Tensor) -> Tensor:
            if is_open:
                # Copies: a compiled function in MindSpore 2.10 reads a view from the start of its storage.
                self.compiled_statistics(input_of_call.copy(), dout.copy(), self.gate_parameter, *self.staged)
            if self.counter is not None:
                self.counter(input_of_call, self.samples, self.record)
            return dout

        try:
            y.register_hook(take)
        except RuntimeError as error:
            # Outside a gradient there may be nothing to hook, and statistics are unused then.
            if "requires grad" not in str(error):
                raise
        return y

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        watched = self.stop_gradient(x)
        if self.expects:
            self.statistics.expect(watched, y)
        if self.counts:
            y = self.counting_identity(watched, y, self.samples, self.record)
        gate = self.gate_parameter
        if self.carried == 2:
            return self.identity(watched, y, gate, self.s1, self.s2)
        if self.carried == 3:
            return self.identity(watched, y, gate, self.s1, self.s2, self.s3)
        if self.carried == 4:
            return self.identity(watched, y, gate, self.s1, self.s2, self.s3, self.s4)
        return self.identity(watched, y, gate, self.s1, self.s2, self.s3, self.s4, self.s5, self.s6)
