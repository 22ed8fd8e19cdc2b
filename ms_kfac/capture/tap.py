"""The tap: an identity in the forward pass that takes statistics in the backward pass."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.kernels.vmap_rules import refused_by_vmap
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.statistics.layer_statistics import PERIOD, StatisticsOperator
from ms_kfac.refresh.gate import Gate


class SampleCounter(nn.Cell):
    """Counts the samples of a step's backward passes, for losses that are sums and for lone Parameters.

    As with staged statistics, only the step's own passes count: the last ones before it, as many as the
    record of the counting layer says. Earlier passes belong to a dropped step or to another objective. If one
    backward pass calls the layer several times, all calls have the same samples.

    Args:
        name: prefix of the names of the Parameters: the samples and the number of all passes since the
            optimizer's last step, and the samples of the last pass.
        record: the record of the counting layer.

    Attributes:
        sample_axis: axis of the samples in the counting layer's input.
        feature_axes: number of axes of that input in addition to those of samples and locations.
    """

    sample_axis = 0
    feature_axes = 1

    def __init__(self, name: str, record: Parameter) -> None:
        super().__init__(auto_prefix=False)
        self.sums = Parameter(Tensor([0.0, 0.0], ms.float32), name=name, requires_grad=False)
        self.last = Parameter(Tensor([0.0], ms.float32), name=f"{name}.last_pass", requires_grad=False)
        # Not an element of a tuple: a compiled step would not order its reads.
        self.__dict__["record"] = record
        self.assign = ops.Assign()
        self.assign_add = ops.AssignAdd()
        self.shape = ops.Shape()
        self.stack = refused_by_vmap()
        self.one = Tensor(1.0, ms.float32)
        self.ones_of_sums, self.ones_of_last = Tensor([1.0, 1.0], ms.float32), Tensor([1.0], ms.float32)

    def construct(self, x: Tensor, dout: Tensor, sums: Parameter, last: Parameter) -> Tensor:
        samples = ops.depend(self.one * float(self.samples(x)), dout)
        # Several calls of a layer in one graph write in any order, so that no value is read here.
        added = self.assign_add(sums, self.stack((samples, self.one)))
        return ops.depend(added, self.assign(last, samples.reshape((1,))))

    def samples(self, x: Tensor) -> int:
        """Number of samples of the counting layer's input, as its statistics count them."""
        shape = self.shape(x)
        return shape[self.sample_axis] if len(shape) > self.sample_axis + self.feature_axes else 1

    def take(self, after: Tensor, calls: Tensor) -> Tensor:
        """Return the samples of this step, 0 if no pass was counted, and reset the counter.

        Args:
            after: dependency of the reads: a gradient.
            calls: number of calls of the counting layer per backward pass.
        """
        # The commit writes records as elements of a tuple, which orders no read. It has written the calls.
        period = ops.maximum(element(ops.depend(self.record, calls), PERIOD), 1.0)
        sums, last = ops.depend(self.sums, after), ops.depend(self.last, after)
        others = element(sums, 1) > period
        counted = ops.where(others, element(last, 0) * period, element(sums, 0)) / calls
        sums_reset = self.assign(self.sums, ops.depend(self.ones_of_sums * 0.0, counted))
        last_reset = self.assign(self.last, ops.depend(self.ones_of_last * 0.0, counted))
        return ops.depend(counted, (sums_reset, last_reset))


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

    def construct(self, x: Tensor, y: Tensor, sums: Parameter, last: Parameter) -> Tensor:
        return y

    def bprop(
        self, x: Tensor, y: Tensor, sums: Parameter, last: Parameter, out: Tensor, dout: Tensor
    ) -> tuple[Tensor, ...]:
        self.counter(x, dout, sums, last)
        return ops.zeros_like(x), dout, sums, last


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
        if counter is not None:
            self.__dict__["sample_sums"], self.__dict__["last_samples"] = counter.sums, counter.last
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
                self.counter(input_of_call, dout, self.sample_sums, self.last_samples)
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
            y = self.counting_identity(watched, y, self.sample_sums, self.last_samples)
        gate = self.gate_parameter
        if self.carried == 2:
            return self.identity(watched, y, gate, self.s1, self.s2)
        if self.carried == 3:
            return self.identity(watched, y, gate, self.s1, self.s2, self.s3)
        if self.carried == 4:
            return self.identity(watched, y, gate, self.s1, self.s2, self.s3, self.s4)
        return self.identity(watched, y, gate, self.s1, self.s2, self.s3, self.s4, self.s5, self.s6)
