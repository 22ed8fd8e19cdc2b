"""What a tap needs of a statistics operator, and what such operators share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops.primitive import constexpr

from ms_kfac.kernels.operator import is_native, native_operator
from ms_kfac.kernels.precision import precision
from ms_kfac.ops.capture_check import CaptureCheck
from ms_kfac.ops.element import element

# What the gate of a tap holds: 0 is closed, otherwise a sum of these.
INPUTS = 1
GRADIENTS = 2
EVERYTHING = INPUTS + GRADIENTS
# Alone, for operators that track something beside the factors: leave the factors as they are.
BESIDE_FACTORS = 4

# A layer's record of its staged batch (kernels/interface/staged_batch.h); the batch's weights follow.
PASSES, PERIOD, PRODUCT, PRODUCTS, SCALE, STAGED_WEIGHTS = range(6)


@dataclass(frozen=True)
class StatisticsOptions:
    r"""How a batch enters the statistics; the same for all layers of an optimizer.

    Attributes:
        sharing: "expand" or "reduce", how weight-sharing locations enter.
        mean_reduction: whether the loss averages over the batch: :math:`g = N \cdot scale \cdot dout`, else
            :math:`g = scale \cdot dout`.
        gradient_scale: the scale of that formula: the number of micro-batches that a loss is divided by. The
            loss scale is undone when a batch is committed.
        separate: whether the gate opens for statistics of inputs and of gradients separately.
        precision: in which the GPU's kernels multiply: see :func:`ms_kfac.kernels.set_precision`.
    """

    sharing: str
    mean_reduction: bool
    gradient_scale: float
    separate: bool = False
    precision: str = field(default_factory=precision)


class StatisticsOperator(nn.Cell):
    """Base of the operators that stage one batch of a layer's statistics, gated by a Parameter.

    Inputs of a subclass: x, dout, the gate (scalar int32 Parameter, see this module's constants) and the
    Parameters that it reads and writes in place: staged arrays and the record that describes them.

    A pass replaces what is staged, unless it is one of several micro-batches of a step (the record's period).

    Layers of the same geometry share one operator object, so that PyNative mode compiles it once per shape,
    not once per layer.

    A kernel does what the ``construct`` of the class that names it does. A subclass with another one names
    its own kernel, or has the fallback alone.

    Attributes:
        as_graph: the operator as one compiled graph, for PyNative mode.
        operator: its name in :func:`ms_kfac.kernels.status`; None where no kernel serves it.
        kernel: the native form; None where the fallback runs.
        input_type: what a tap casts x to; dout it casts to float32.
    """

    as_graph: Callable[..., Any]
    input_type: Any = ms.float32
    operator: str | None = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Take the base's kernel from a subclass that does something else."""
        super().__init_subclass__(**arguments)
        if "construct" in vars(cls):
            cls.operator = vars(cls).get("operator")

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.kernel: Any = None
        self.__dict__["as_graph"] = ms.jit(self.compiled)

    def compiled(self, x: Tensor, dout: Tensor, gate: Parameter, *state: Parameter) -> bool:
        """The operator; depends on its state outside its branch, for the reason in ``ops/on_device.py``."""
        inputs, gradients = ops.cast(x, self.input_type), ops.cast(dout, ms.float32)
        return self.construct(inputs, gradients, ops.depend(gate, state), *state)

    def within_graph(self) -> Any:
        """What a tap calls in a compiled graph.

        Returns:
            The kernel past this Cell, which need not be compiled then, once per layer; the Cell itself where
            it has none.
        """
        return self if self.kernel is None else self.kernel

    def expect(self, x: Tensor, y: Tensor) -> bool:
        """Called where a forward pass is compiled, for operators that want to know its shapes early.

        Args:
            x: the layer's input.
            y: its linear output.

        Returns:
            True.
        """
        return True


class LayerStatistics(StatisticsOperator):
    """Base of the operators of one layer: samples, locations, the scale of g, and how a batch is staged.

    Args:
        operators: how the layer's input and output gradient become rows or columns
            (:class:`ms_kfac.capture.layer.LayerOperators`).
        options: how a batch enters.
        native: whether a kernel may run; False for the fallback.
        attributes: what the kernel reads in addition to what those of all layer statistics do.
    """

    # How many weights the statistics have.
    weights = 1

    def __init__(
        self, operators: Any, options: StatisticsOptions, *, native: bool = True, **attributes: Any
    ) -> None:
        super().__init__()
        reduce = options.sharing == "reduce"
        self.activations = operators.activations(reduce)
        self.gradients = operators.gradients(reduce)
        self.second_moment = operators.second_moment()
        self.channels_first = operators.channels_first
        self.reduce = reduce
        self.mean_reduction = options.mean_reduction
        self.gradient_scale = options.gradient_scale
        self.separate = options.separate
        self.shape = ops.Shape()
        self.mul = ops.Mul()
        self.assign = ops.Assign()
        self.reshape = ops.Reshape()
        self.concat = ops.Concat()
        self.stack = ops.Stack()
        self.cast = ops.Cast()
        self.logical_and = ops.LogicalAnd()
        self.logical_or = ops.LogicalOr()
        self.capture_check = CaptureCheck(operators)
        always = np.zeros(STAGED_WEIGHTS + self.weights, bool)
        always[[PASSES, PERIOD]] = True
        products = np.zeros_like(always)
        products[PRODUCTS] = True
        self.kept_always, self.kept_products = Tensor(always), Tensor(products)
        self.kept_joined = Tensor(~(always | products))
        self.nothing = Tensor(np.zeros(STAGED_WEIGHTS + self.weights, np.float32))
        self.one_pass = Tensor([1.0, 0.0], ms.float32)
        self.vector = constexpr(fn=_vector, name="vector", reuse_result=False)
        geometry = operators.native_geometry() if native else None
        self.native = self.operator is not None and geometry is not None and is_native(self.operator)
        if self.operator is not None and geometry is not None and self.native:
            self.kernel = native_operator(
                self.operator,
                reduce=reduce,
                mean_reduction=self.mean_reduction,
                gradient_scale=float(self.gradient_scale),
                separate=self.separate,
                precision=options.precision,
                **geometry,
                **attributes,
            )

    def samples(self, x: Tensor) -> int:
        """Samples N of a batch: the first axis of the layer's input."""
        shape = self.shape(x)
        return shape[0] if len(shape) > 1 else 1

    def output_gradients(self, x: Tensor, dout: Tensor) -> Tensor:
        """Rows or columns g of the per-sample loss."""
        return self.scaled(x, self.gradients(dout))

    def scaled(self, x: Tensor, g: Tensor) -> Tensor:
        """Rows or columns of dout as those of the per-sample loss."""
        scale = self.gradient_scale
        if self.mean_reduction:
            scale = scale * self.samples(x)
        if scale != 1.0:
            # Before any product: squares of a large batch's mean-loss gradients could underflow in float32.
            g = self.mul(g, scale)
        return g

    def locations(self, dout: Tensor) -> int:
        """Weight-sharing locations per sample that count for G: T in the expand setting, 1 in reduce."""
        if self.reduce:
            return 1
        shape = self.shape(dout)
        shared = shape[2:] if self.channels_first else shape[1:-1]
        locations = 1
        for size in shared:
            locations = locations * size
        return locations

    def joins(self, record: Parameter) -> Tensor:
        """Whether this pass adds to what is staged, bool; otherwise it replaces it."""
        passes, period = element(record, PASSES), element(record, PERIOD)
        return self.logical_and(period > 1.5, passes % ops.maximum(period, 1.0) > 0.5)

    def stage(self, batch: Parameter, value: Tensor, record: Parameter, weight: int) -> bool:
        """Replace or join one staged array."""
        # An array without weight holds an older batch, which may hold NaN: it is selected away.
        joins = self.logical_and(self.joins(record), element(record, STAGED_WEIGHTS + weight) > 0.0)
        self.assign(batch, ops.where(joins, batch, 0.0) + self.reshape(value, batch.shape))
        return True

    def record_pass(self, x: Tensor, dout: Tensor, record: Parameter, taken: Tensor) -> bool:
        """Describe the staged batch after a pass that added ``taken`` to its weights; call it last."""
        product, scale = self.capture_check(x, dout)
        kept = self.logical_or(self.kept_always, self.logical_and(self.kept_joined, self.joins(record)))
        started = element(record, PASSES) > 0.5
        kept = self.logical_or(kept, self.logical_and(self.kept_products, started))
        added = self.concat((self.one_pass, self.stack((product, product, scale)), taken))
        self.assign(record, ops.where(kept, record, self.nothing) + added)
        return True


def _vector(*numbers: float) -> Tensor:
    return Tensor(np.array(numbers, np.float32))
