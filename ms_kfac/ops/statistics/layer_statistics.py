"""Base classes and options of the statistics operators, which taps call in the backward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops.functional import isconstant
from mindspore.ops.primitive import constexpr

from ms_kfac.kernels.backward_operator import backward_operator
from ms_kfac.kernels.operator import is_native
from ms_kfac.kernels.precision import precision
from ms_kfac.kernels.vmap_rules import refused_by_vmap
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.statistics.capture_check import CaptureCheck

# Values of a tap's gate: 0 is closed; an open gate holds a sum of these flags.
INPUTS = 1
GRADIENTS = 2
EVERYTHING = INPUTS + GRADIENTS
# This flag alone stages only what an operator tracks in addition to the factors.
CORRECTED_EIGENVALUES = 4

# Layout of a layer's record of its staged batch (kernels/interface/staged_batch.h). The weights come last.
# PASSES is negative or 0 during passes that come first and do not belong to the step.
PASSES, PERIOD, PRODUCT, PRODUCTS, SCALE, STAGED_WEIGHTS = range(6)


@dataclass(frozen=True)
class StatisticsOptions:
    r"""How a batch enters the statistics. All layers of an optimizer use the same options.

    Attributes:
        sharing: "expand" or "reduce", the treatment of weight-sharing locations.
        mean_reduction: whether the loss averages over the batch. If True, :math:`g = N \cdot scale \cdot
            dout`; if False, :math:`g = scale \cdot dout`.
        gradient_scale: the scale in that formula, which is the number of micro-batches by which the loss is
            divided. The loss scale is undone when a batch is committed.
        separate: whether the gate opens separately for statistics of inputs and of output gradients. Default:
            False.
        precision: multiplication precision of the GPU kernels, see :func:`ms_kfac.kernels.set_precision`.
    """

    sharing: str
    mean_reduction: bool
    gradient_scale: float
    separate: bool = False
    precision: str = field(default_factory=partial(precision, "covariances"))


class StatisticsOperator(nn.Cell):
    """Base of the operators that stage one batch of a layer's statistics, gated by a Parameter.

    The inputs of a subclass are x, dout, the gate (scalar int32 Parameter, see this module's constants) and
    the Parameters that it reads or writes in place: the staged arrays and the record that describes them.

    A backward pass replaces the staged batch. If a step has several micro-batches (the record's period), the
    later passes of the step add to the staged batch.

    Layers of the same geometry share one operator object. PyNative mode therefore compiles it once per shape,
    not once per layer.

    A kernel implements the ``construct`` method of the class that names it. A subclass that overrides
    ``construct`` must name its own kernel. Otherwise only the fallback runs.

    Attributes:
        as_graph: the operator as one compiled graph, for PyNative mode.
        operator: the kernel's name in :func:`ms_kfac.kernels.status`; None if the operator has no kernel.
        kernel: the native kernel; None if the fallback runs.
        input_type: the dtype to which a tap casts x. A tap casts dout to float32.
    """

    as_graph: Callable[..., Any]
    input_type: Any = ms.float32
    operator: str | None = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Reset ``operator`` for a subclass that overrides ``construct`` and names no kernel."""
        super().__init_subclass__(**arguments)
        if "construct" in vars(cls):
            cls.operator = vars(cls).get("operator")

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.kernel: Any = None
        self.__dict__["as_graph"] = ms.jit(self.compiled)

    def compiled(self, x: Tensor, dout: Tensor, gate: Parameter, *state: Parameter) -> bool:
        """Run the operator. It depends on its state outside its branch: ``ops/graph/device_residency.py``."""
        inputs, gradients = ops.cast(x, self.input_type), ops.cast(dout, ms.float32)
        return self.construct(inputs, gradients, ops.depend(gate, state), *state)

    def within_graph(self) -> Any:
        """Return the function that a tap calls in a compiled graph.

        Returns:
            The kernel, or this Cell if there is no kernel. Calling the kernel directly avoids compiling this
            Cell once per layer.
        """
        return self if self.kernel is None else self.kernel

    def expect(self, x: Tensor, y: Tensor) -> bool:
        """Hook for operators that need the shapes early. Called when a forward pass is compiled.

        Args:
            x: the layer's input.
            y: the layer's linear output.

        Returns:
            True.
        """
        return True


class LayerStatistics(StatisticsOperator):
    """Base of the statistics operators of one layer. Defines samples, locations, the scale of g and staging.

    Args:
        operators: how the layer's input and output gradient become rows or columns
            (:class:`ms_kfac.capture.layer.LayerOperators`).
        options: how a batch enters the statistics.
        native: False to always run the fallback. Default: True.
        **attributes: kernel attributes in addition to the common ones of layer statistics.

    Attributes:
        weights: number of weights in the record.
    """

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
        self.channels_last = operators.channels_last
        self.locates_inputs = operators.locates_inputs
        self.feature_axes = operators.feature_axes
        self.reduce = reduce
        self.mean_reduction = options.mean_reduction
        self.gradient_scale = options.gradient_scale
        self.separate = options.separate
        self.shape = ops.Shape()
        self.mul = ops.Mul()
        self.assign = ops.Assign()
        self.reshape = ops.Reshape()
        self.concat = ops.Concat()
        self.stack = refused_by_vmap()
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
        self.constants = constexpr(fn=_vector, name="vector", reuse_result=False)
        geometry = operators.native_geometry() if native else None
        self.native = self.operator is not None and geometry is not None and is_native(self.operator)
        if self.operator is not None and geometry is not None and self.native:
            self.kernel = backward_operator(
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
        """Number of samples N of a batch: the first axis of the layer's input; 1 without a batch axis."""
        shape = self.shape(x)
        return shape[0] if len(shape) > self.feature_axes else 1

    def vector(self, *numbers: Any) -> Tensor:
        """Join numbers into a float32 vector, at compilation if the compiler knows them."""
        if isconstant(numbers):
            return self.constants(*numbers)
        elements: tuple[Tensor, ...] = ()
        for number in numbers:
            elements = (*elements, ops.scalar_to_tensor(number, ms.float32))
        return self.stack(elements)

    def output_gradients(self, x: Tensor, dout: Tensor) -> Tensor:
        """Convert dout to rows or columns g, the output gradients of the per-sample loss."""
        return self.scaled(x, self.gradients(dout))

    def scaled(self, x: Tensor, g: Tensor) -> Tensor:
        """Scale rows or columns of dout to output gradients of the per-sample loss."""
        scale = self.gradient_scale
        if self.mean_reduction:
            scale = scale * self.samples(x)
        if scale != 1.0:
            # Scaled before any product: squared mean-loss gradients of a large batch can underflow float32.
            g = self.mul(g, scale)
        return g

    def located(self, x: Tensor, dout: Tensor) -> Tensor:
        """The one of x and dout whose axes are the locations."""
        return x if self.locates_inputs else dout

    def locations(self, x: Tensor, dout: Tensor) -> int:
        """Number of locations per sample in the weight of G: T in the expand setting, 1 in reduce."""
        return 1 if self.reduce else self.locations_of(self.shape(self.located(x, dout)))

    def locations_of(self, shape: tuple[int, ...]) -> int:
        """Number of locations per sample in a tensor of that shape."""
        shared = shape[1:-1] if self.channels_last else shape[2:]
        locations = 1
        for size in shared:
            locations = locations * size
        return locations

    def joins(self, record: Parameter) -> Tensor:
        """Whether this pass adds to the staged batch (bool Tensor). Otherwise it replaces that batch."""
        passes, period = element(record, PASSES), element(record, PERIOD)
        return self.logical_and(period > 1.5, passes % ops.maximum(period, 1.0) > 0.5)

    def stage(self, batch: Parameter, value: Tensor, record: Parameter, weight: int) -> bool:
        """Replace one staged array, or add to it."""
        # An array with weight 0 holds an older batch, possibly with NaN, so select is used and not a product.
        joins = self.logical_and(self.joins(record), element(record, STAGED_WEIGHTS + weight) > 0.0)
        self.assign(batch, ops.where(joins, batch, 0.0) + self.reshape(value, batch.shape))
        return True

    def record_pass(self, x: Tensor, dout: Tensor, record: Parameter, taken: Tensor) -> bool:
        """Update the record after a pass that adds ``taken`` to the weights. Must come last in a pass."""
        product, scale = self.capture_check(x, dout)
        kept = self.logical_or(self.kept_always, self.logical_and(self.kept_joined, self.joins(record)))
        started = element(record, PASSES) > 0.5
        kept = self.logical_or(kept, self.logical_and(self.kept_products, started))
        added = self.concat((self.one_pass, self.stack((product, product, scale)), taken))
        self.assign(record, ops.where(kept, record, self.nothing) + added)
        return True


def _vector(*numbers: float) -> Tensor:
    return Tensor(np.array(numbers, np.float32))
