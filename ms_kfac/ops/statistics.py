"""What a tap needs of a statistics operator, and what such operators share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.kernels.operator import is_native, native_operator
from ms_kfac.kernels.precision import precision

# What the gate of a tap holds: 0 is closed, otherwise a sum of these.
INPUTS = 1
GRADIENTS = 2
EVERYTHING = INPUTS + GRADIENTS
# Alone, for operators that track something beside the factors: leave the factors as they are.
BESIDE_FACTORS = 4


@dataclass(frozen=True)
class StatisticsOptions:
    r"""How a batch enters the statistics; the same for all layers of an optimizer.

    Attributes:
        sharing: "expand" or "reduce", how weight-sharing locations enter.
        mean_reduction: whether the loss averages over the batch: :math:`g = N \cdot scale \cdot dout`, else
            :math:`g = scale \cdot dout`.
        gradient_scale: the scale of that formula; it undoes the loss scale.
        separate: whether the gate opens for statistics of inputs and of gradients separately.
        precision: in which the GPU's kernels multiply: see :func:`ms_kfac.kernels.set_precision`.
    """

    sharing: str
    mean_reduction: bool
    gradient_scale: float
    separate: bool = False
    precision: str = field(default_factory=precision)


class StatisticsOperator(nn.Cell):
    """Base of the operators that add one batch to a layer's statistics, gated by a Parameter.

    Inputs of a subclass: x, dout, the gate (scalar int32 Parameter, see this module's constants) and the four
    or six Parameters that it reads and writes in place.

    Layers of the same geometry share one operator object, so that PyNative mode compiles it once a shape, not
    once a layer.

    A kernel does what the ``construct`` does of the class that names it. A subclass with another one names
    its own kernel, or has the composed form alone.

    Attributes:
        as_graph: the operator as one compiled graph, for PyNative mode.
        operator: its name in :func:`ms_kfac.kernels.status`; None where no kernel serves it.
        kernel: the native form; None where the composed one runs.
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
            The kernel past this Cell, which need not be compiled then, once a layer; the Cell itself where it
            has none.
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
    """Base of the operators of dense layers and convolutions: samples, locations, the scale of g.

    Args:
        activations: turns the layer's input into rows or columns.
        gradients: turns the layer's output gradient into the same layout.
        second_moment: sums the outer products of that layout.
        channels_first: whether ``dout`` is :math:`(N, c, ...)` (convolutions) or :math:`(N, ..., c)` (dense
            layers).
        options: how a batch enters.
        geometry: for the native form, from the layer's ``native_geometry()``; None: composed.
    """

    def __init__(
        self,
        activations: nn.Cell,
        gradients: nn.Cell,
        second_moment: nn.Cell,
        *,
        channels_first: bool,
        options: StatisticsOptions,
        geometry: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.activations = activations
        self.gradients = gradients
        self.second_moment = second_moment
        self.channels_first = channels_first
        self.reduce = options.sharing == "reduce"
        self.mean_reduction = options.mean_reduction
        self.gradient_scale = options.gradient_scale
        self.separate = options.separate
        self.precision = options.precision
        self.use_native(geometry, separate=self.separate)
        self.shape = ops.Shape()
        self.mul = ops.Mul()
        self.assign_add = ops.AssignAdd()

    def use_native(self, geometry: dict[str, Any] | None, **own: Any) -> None:
        """Choose between the native and the composed form, once and for all.

        Args:
            geometry: from the layer's ``native_geometry()``; None: composed.
            **own: what the kernel reads beside what those of all layer statistics do.
        """
        self.native = False
        if self.operator is not None and geometry is not None and is_native(self.operator):
            self.native = True
            self.kernel = native_operator(
                self.operator,
                reduce=self.reduce,
                mean_reduction=self.mean_reduction,
                gradient_scale=float(self.gradient_scale),
                precision=self.precision,
                **geometry,
                **own,
            )

    def samples(self, x: Tensor) -> int:
        """Samples N of a batch: the first axis of the layer's input."""
        shape = self.shape(x)
        return shape[0] if len(shape) > 1 else 1

    def output_gradients(self, x: Tensor, dout: Tensor) -> Tensor:
        """Rows or columns g of the per-sample loss."""
        scale = self.gradient_scale
        if self.mean_reduction:
            scale = scale * self.samples(x)
        g = self.gradients(dout)
        if scale != 1.0:
            # Scaled before any product: squares of a large batch's mean-loss gradients could underflow in
            # float32.
            g = self.mul(g, scale)
        return g

    def locations(self, dout: Tensor) -> int:
        """Weight-sharing locations a sample that count for G: T in the expand setting, 1 in reduce."""
        if self.reduce:
            return 1
        shape = self.shape(dout)
        shared = shape[2:] if self.channels_first else shape[1:-1]
        locations = 1
        for size in shared:
            locations = locations * size
        return locations
