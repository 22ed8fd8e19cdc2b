"""The tap: an identity in the forward pass that takes statistics in the backward pass."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.kernels.vmap_rules import refused_by_vmap
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.statistics.layer_statistics import PASSES, PERIOD, StatisticsOperator
from ms_kfac.refresh.gate import Gate


class SampleCounter(nn.Cell):
    """Counts the samples of a step's backward passes, for losses that are sums and for lone Parameters.

    As with staged statistics, a pass replaces the count of the previous pass, unless both are micro-batches
    of one step. So passes of a dropped step, or of another objective, do not count. The record of the
    counting layer holds the number of passes per step. If one backward pass calls the layer several times,
    all calls have the same samples.

    Args:
        name: name of the Parameter. It holds the samples of the staged batch, the samples of all passes since
            the optimizer's last step, the number of these passes, and the period with which they were
            counted.

    Attributes:
        sample_axis: axis of the samples in the counting layer's input.
    """

    sample_axis = 0

    def __init__(self, name: str) -> None:
        super().__init__(auto_prefix=False)
        self.samples = Parameter(Tensor([0.0, 0.0, 0.0, 1.0], ms.float32), name=name, requires_grad=False)
        self.assign = ops.Assign()
        self.shape = ops.Shape()
        self.stack = refused_by_vmap()
        self.cast = ops.Cast()
        self.pass_count = Tensor([0.0, 0.0, 1.0, 0.0], ms.float32)

    def construct(self, x: Tensor, samples: Parameter, record: Parameter) -> bool:
        period = ops.maximum(element(record, PERIOD), 1.0)
        new = float(self.shape(x)[self.sample_axis])
        passes = element(samples, 2)
        joined = element(samples, 0) * self.cast(passes % period > 0.5, ms.float32) + new
        everything = element(samples, 1) + new
        self.assign(samples, self.stack((joined, everything, passes + 1.0, period)))
        return True

    def take(self, after: Tensor, record: Parameter, calls: Any) -> Tensor:
        """Return the samples of this step, 0 if no pass was counted, and reset the counter.

        Args:
            after: dependency of the reset: a gradient.
            record: the record of the counting layer.
            calls: number of calls of the counting layer per backward pass.
        """
        period = ops.maximum(element(record, PERIOD), 1.0)
        # The first commit detects that several passes make up a step only after they were counted.
        known = self.cast(ops.equal(period, element(self.samples, 3)), ms.float32)
        counted = element(self.samples, 0) * known + element(self.samples, 1) * (1.0 - known)
        # Passes that the record skips are skipped here, too. A commit has emptied the record before this.
        skipped = ops.minimum(element(record, PASSES), 0.0)
        nothing = ops.depend(self.pass_count * skipped, (after, counted))
        return ops.depend(counted, self.assign(self.samples, nothing)) / calls


class IdentityBase(nn.Cell):
    """Base of the identities of taps.

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
    """Identity of y, with two Parameters. Its ``bprop`` calls the statistics operator with x and dout.

    The Parameters are inputs: ``bprop`` does not compile with Parameters as attributes, with a starred
    argument or with a tuple of Parameters. Hence there is one class per number of Parameters.

    Statistics are float32 for every compute type of the layer, and dout keeps its type. The input is cast
    here, because a cast in the forward pass would keep a copy of it until the backward pass.

    The gate is read after dout is available. A compiled step may write the gate between two passes, and
    without this dependency it could read the gate at any time.

    The compiler treats the Parameters as values here and does not see that a kernel writes to them. Only the
    commit reads them, after the gradients.
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
        # The gradients of the Parameters are unused; returning zeros would compile extra operators.
        return self.zeros_like(x), dout, gate, s1, s2


class _IdentityOfThree(IdentityBase):
    """Like :class:`_IdentityOfTwo`, with three Parameters."""

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
        # The gradients of the Parameters are unused; returning zeros would compile extra operators.
        return self.zeros_like(x), dout, gate, s1, s2, s3


class _IdentityOfFour(IdentityBase):
    """Like :class:`_IdentityOfTwo`, with four Parameters."""

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
        # The gradients of the Parameters are unused; returning zeros would compile extra operators.
        return self.zeros_like(x), dout, gate, s1, s2, s3, s4


class _IdentityOfSix(IdentityBase):
    """Like :class:`_IdentityOfTwo`, with six Parameters."""

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
        # The gradients of the Parameters are unused; returning zeros would compile extra operators.
        return self.zeros_like(x), dout, gate, s1, s2, s3, s4, s5, s6


_IDENTITIES: dict[int, Any] = {2: _IdentityOfTwo, 3: _IdentityOfThree, 4: _IdentityOfFour, 6: _IdentityOfSix}


class _CountingIdentity(nn.Cell):
    """Identity of y. Its ``bprop`` counts the samples of x."""

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


class NoTap(nn.Cell):
    """Stands for the tap of a layer without one, in a cell with several layers."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return y

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        return y


class Tap(nn.Cell):
    """Tap of one linear map y = f(x): passes x and the gradient of y to the layer's statistics operator.

    Graph mode parses :meth:`construct`, where a custom ``bprop`` calls the operator, and the operator reads
    the gate. PyNative mode calls the object. With a closed gate it returns y itself, at no cost. With an open
    gate it registers a hook on the gradient of y, which runs the same operator, compiled.

    Args:
        statistics: the block's statistics operator.
        staged: the two, three, four or six Parameters that the operator reads and writes.
        gate: whether the next step takes statistics.
        counter: counts samples on every step, whether or not the gate is open; None if the count is unused.
            Default: None.
        record: the record among ``staged``, which the counter reads; None without a counter. Default: None.

    Attributes:
        calls: number of forward calls before the last backward pass, as PyNative mode has seen them; 0 in
            compiled steps.

    Raises:
        TypeError: if ``staged`` has another number of Parameters.
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
        # Compile the call of expect() only for operators that override it.
        self.expects = type(statistics).expect is not StatisticsOperator.expect
        self.counts = counter is not None
        self.counting_identity: Any = None if counter is None else _CountingIdentity(counter)
        # Not in the Cell's registries: the optimizer owns these Parameters, and the network must not list
        # them.
        self.__dict__["gate"] = gate
        self.__dict__["gate_parameter"] = gate.parameter
        self.__dict__["staged"] = tuple(staged)
        self.__dict__["counter"] = counter
        self.__dict__["samples"] = None if counter is None else counter.samples
        self.__dict__["record"] = record
        self.__dict__["compiled_statistics"] = statistics.as_graph
        self.__dict__["calls"] = self.__dict__["waiting_calls"] = 0
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
            if self.waiting_calls > 0:
                # The first hook of a backward pass.
                self.__dict__.update(calls=self.waiting_calls, waiting_calls=0)
            if is_open:
                # Copies, because a compiled function in MindSpore 2.10 reads a view from the start of its
                # storage.
                self.compiled_statistics(input_of_call.copy(), dout.copy(), self.gate_parameter, *self.staged)
            if self.counter is not None:
                self.counter(input_of_call, self.samples, self.record)
            return dout

        try:
            y.register_hook(take)
            self.__dict__["waiting_calls"] += 1
        except RuntimeError as error:
            # Without a gradient computation there is no gradient to hook, and statistics are not needed.
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
