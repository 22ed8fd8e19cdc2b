"""Interface between the optimizer and the approximations of a layer's Fisher block."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from numpy.typing import NDArray

from ms_kfac.capture.layer import OTHER, Layer, LayerOperators
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.refresh.factored_tikhonov import SMALLEST_COUNT
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh, RefreshSpec
from ms_kfac.ops.statistics.layer_statistics import (
    EVERYTHING,
    GRADIENTS,
    INPUTS,
    PERIOD,
    STAGED_WEIGHTS,
    LayerStatistics,
    StatisticsOperator,
    StatisticsOptions,
)
from ms_kfac.ops.step.layer_precondition import NativeForm
from ms_kfac.ops.step.weight_matrix import InputFirstMatrix, WeightMatrix
from ms_kfac.statistics.commit import RootAverage
from ms_kfac.statistics.statistic import Statistic


@cache
def layer_statistics(kind: Any, operators: LayerOperators, options: StatisticsOptions) -> LayerStatistics:
    """Create the statistics operator of a layer geometry, or return the cached one.

    All layers of one geometry share one operator.

    Args:
        kind: a subclass of LayerStatistics.
        operators: how a layer's inputs and output gradients become rows or columns.
        options: how a batch enters the statistics.

    Returns:
        The operator.
    """
    operator: LayerStatistics = kind(operators, options)
    return operator


class CurvatureBlock(nn.Cell):
    """Base of the curvature blocks: statistics -> factors -> inverse -> precondition.

    A subclass

    * declares its statistics with :meth:`add_statistic` and :meth:`create_weights`;
    * sets ``operator``, with which a tap stages the statistics;
    * creates its inverses as Parameters;
    * sets ``layer_refresh`` or defines :meth:`refresh`;
    * defines the abstract methods.

    This class derives the rest from the statistics: the moving averages, :meth:`factors`, the tensors that
    ranks exchange, the tensors that policies compare, and the memory. All methods but
    :meth:`native_refresh`, :meth:`expect_calls`, :meth:`factors`, :meth:`dimensions` and :meth:`bytes` run
    inside the compiled step.

    An optimizer calls ``SomeBlock(layer, prefix=..., options=..., period=...)``. It calls a function given as
    a value of the option ``blocks`` in the same way. The arguments are

    * the layer (:class:`ms_kfac.capture.Layer`);
    * the prefix of the Parameters' names;
    * how a batch enters the statistics (:class:`ms_kfac.ops.statistics.layer_statistics.StatisticsOptions`);
    * the number of backward passes per batch, which is the optimizer's ``accumulation_steps``.

    Args:
        layer: the layer whose Fisher block this is.
        prefix: prefix of the names of the block's Parameters.

    Attributes:
        operator: operator that a tap calls with x, dout, the gate and ``staged``.
        statistics: the quantities that are averaged over batches.
        record: describes the staged batch, float32: see ``kernels/interface/staged_batch.h``.
        weights: the weights of the averages, float32.
        staged: the 2, 3, 4 or 6 Parameters that ``operator`` reads and writes in place, in its argument
            order. A Parameter outside all layers has two of them, a batch and the record. Its operator gets
            the number of samples instead of x, and the gradient of the mean loss instead of dout.
        roots: options of averages over roots of the batches' traces; None if the averages are of sums.
        layer_refresh: operator that recomputes the inverses that :meth:`precondition` applies.
        size: dimension of the block, which is the layer's number of weights.
        not_additive_reason: why statistics of several ranks do not add up to those of the combined batch;
            empty if they do.
        read_by_all_reason: why ranks that do not refresh this layer need its statistics; empty if they do
            not.
        applies_remote_refresh: whether :meth:`apply_remote_refresh` has side effects.
        follows_trace: whether the damping is derived from the traces, and not from the optimizer's option.
        used_before_refresh: whether a step uses the block before it refreshes it, as in EKFAC.
        reporter: number of the reporter that a joint refresh tells of inverses that can't be computed. They
            are errors with 0, and in a refresh of the block alone.

    Raises:
        TypeError: if a subclass lacks an abstract method, or does not support the layer.
    """

    kind = "abstract"
    not_additive_reason = ""
    read_by_all_reason = ""
    applies_remote_refresh = False
    follows_trace = False
    used_before_refresh = False
    reporter = 0
    operator: StatisticsOperator
    statistics: tuple[Statistic, ...]
    staged: tuple[Parameter, ...]
    roots: RootAverage | None = None
    layer_refresh: LayerRefresh

    SMALLEST_COUNT = SMALLEST_COUNT

    @classmethod
    def serves(cls, layer: Layer) -> bool:
        """Whether the block supports a layer.

        Args:
            layer: the layer; its kind is "other" if it stands for a Parameter outside all layers.

        Returns:
            Whether the constructor accepts the layer.
        """
        return layer.kind not in ("embedding", "normalization", OTHER)

    def __init__(self, layer: Layer, *, prefix: str) -> None:
        # The metaclass of a Cell is not ABCMeta, so Python does not reject an incomplete subclass itself.
        missing = [name for name in _ABSTRACT if getattr(getattr(type(self), name), _IS_ABSTRACT, False)]
        if missing:
            raise TypeError(f"{type(self).__name__} must define {', '.join(missing)}")
        if not self.serves(layer):
            groups = f", {layer.groups} groups" if layer.groups > 1 else ""
            raise TypeError(
                f"{type(self).__name__} does not support {layer.name} (kind {layer.kind!r}{groups})"
            )
        super().__init__(auto_prefix=False)
        self.layer_name = layer.name
        self.name_prefix = f"{prefix}.{layer.name}"
        shape = layer.weight.shape
        if layer.input_first:
            self.weight_matrix: WeightMatrix = InputFirstMatrix(shape, groups=layer.groups)
        else:
            self.weight_matrix = WeightMatrix(shape, bias=layer.bias is not None, groups=layer.groups)
        self.size = sum(int(np.prod(parameter.shape)) for parameter in layer.parameters())
        self.groups = layer.groups
        # First axes of each matrix: one matrix per group of a grouped convolution.
        self.leading: tuple[int, ...] = (self.groups,) if self.groups > 1 else ()
        self.statistics = ()
        self.assign = ops.Assign()
        self.slice = ops.Slice()
        self.reshape = ops.Reshape()
        self.maximum = ops.Maximum()
        self.smallest_count = self.SMALLEST_COUNT

    def parameter(self, name: str, value: Any) -> Parameter:
        """Create a float32 Parameter of this block, named after the layer and not trainable."""
        array = np.ascontiguousarray(value, np.float32)
        return Parameter(
            Tensor(array.reshape(np.shape(value))), name=f"{self.name_prefix}.{name}", requires_grad=False
        )

    def matrix_parameter(self, name: str, value: NDArray[Any]) -> Parameter:
        """Create a Parameter with one copy of ``value`` per group."""
        return self.parameter(name, np.broadcast_to(value, (*self.leading, *value.shape)))

    def add_statistic(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        weight: int,
        gate: int,
        power: int,
        symmetric: bool = False,
        averaged: bool = True,
        samples: bool = True,
    ) -> Statistic:
        """Declare a statistic and create its Parameters, ``<name>_batch`` and ``<name>_sum``, as attributes.

        Args:
            name: the statistic's name in the literature.
            shape: the statistic's shape.
            weight: index of the weight that divides it.
            gate: gate code with which it is taken.
            power: degree in the output gradient.
            symmetric: whether its last two axes hold symmetric matrices.
            averaged: False if only the last batch is used.
            samples: False if its weight counts locations and not samples.

        Returns:
            The statistic.
        """
        batch = self.parameter(f"{name}_batch", np.zeros(shape))
        setattr(self, f"{name}_batch", batch)
        average = None
        if averaged:
            average = self.parameter(f"{name}_sum", np.zeros(self.averaged_shape(name, shape)))
            setattr(self, f"{name}_sum", average)
        statistic = Statistic(name, batch, average, weight, gate, power, symmetric, samples)
        self.statistics = (*self.statistics, statistic)
        return statistic

    def averaged_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a statistic's average: by default, the shape of its batch."""
        return shape

    def create_weights(self, count: int, period: int = 1) -> None:
        """Create the record of the staged batch and the weights of the averages.

        Args:
            count: number of weights.
            period: number of backward passes per batch: the optimizer's ``accumulation_steps``. Default: 1.
        """
        record = np.zeros(STAGED_WEIGHTS + count)
        record[PERIOD] = period
        self.record = self.parameter("record", record)
        self.weights = self.parameter("weights", np.zeros(count))
        # A compiled step can read a ParameterTuple and tuples of ints, but no Statistic.
        self.estimated_sums = ParameterTuple([statistic.estimated() for statistic in self.statistics])
        self.weight_indices = tuple(statistic.weight for statistic in self.statistics)
        places = {id(statistic): index for index, statistic in enumerate(self.statistics)}
        self.estimate_indices = tuple(
            tuple(places[id(statistic)] for statistic in group) for group in self.groups_of_statistics()
        )

    def check_complete(self) -> None:
        """Check that a subclass's constructor has created everything that the optimizer uses.

        Raises:
            TypeError: if an attribute is missing.
        """
        missing = [name for name in ("operator", "staged", "record", "weights") if not hasattr(self, name)]
        if not self.statistics:
            missing.append("a statistic (add_statistic)")
        if type(self).refresh is CurvatureBlock.refresh and not hasattr(self, "layer_refresh"):
            missing.append("layer_refresh, or define refresh()")
        if missing:
            raise TypeError(f"{type(self).__name__}.__init__ must create {', '.join(missing)}")

    def check_checkpoint(self, checkpoint: Mapping[str, Parameter]) -> None:
        """Check that a checkpoint can be loaded after steps have been taken.

        Args:
            checkpoint: Parameters by name.

        Raises:
            ValueError: if the compiled steps can't continue from the checkpoint.
        """

    def expect_calls(self, calls: int, passes: int) -> None:
        """Hook, called when a commit finds how often one backward pass calls the layer.

        Args:
            calls: number of calls per backward pass.
            passes: number of calls per step.
        """

    def groups_of_statistics(self) -> tuple[tuple[Statistic, ...], ...]:
        """Groups of statistics that are refreshed together.

        Returns:
            One group for inputs and one for output gradients; a single group if a statistic is joint.
        """
        if any(statistic.gate == EVERYTHING for statistic in self.statistics):
            return (self.statistics,)
        sides = (
            tuple(statistic for statistic in self.statistics if statistic.gate == code)
            for code in (INPUTS, GRADIENTS)
        )
        return tuple(side for side in sides if side)

    def estimate(self, total: Tensor, weight: int) -> Tensor:
        """A weighted sum divided by its weight; zeros before the first statistics."""
        return total / self.maximum(element(self.weights, weight), self.smallest_count)

    def refresh(self, damping: Tensor) -> bool:
        """Recompute the inverses that :meth:`precondition` applies from the current statistics."""
        return self.layer_refresh(damping)

    def native_refresh(self) -> RefreshSpec | None:
        """This layer's specification for a native call that refreshes many layers. Not for use in a graph.

        Returns:
            The specification; None if the fallback is used, or if a subclass defines :meth:`refresh`.
        """
        own = type(self).refresh is not CurvatureBlock.refresh
        return None if own else self.layer_refresh.spec

    def tensors_to_reduce(self) -> tuple[SyncedTensor, ...]:
        """All sums and weights of the statistics: the tensors to all-reduce across ranks."""
        return (*(statistic.share() for statistic in self.statistics), SyncedTensor(self.weights))

    def current_shares(self) -> tuple[SyncedTensor, ...]:
        """The subset of :meth:`tensors_to_reduce` that :meth:`precondition` reads itself."""
        return ()

    def shares_of(self, group: int) -> tuple[SyncedTensor, ...]:
        """The subset of :meth:`tensors_to_reduce` for one group of statistics, and the weights."""
        own = self.groups_of_statistics()[group]
        return (*(statistic.share() for statistic in own), SyncedTensor(self.weights))

    @abstractmethod
    def tensors_to_broadcast(self) -> tuple[SyncedTensor, ...]:
        """Refresh outputs that :meth:`precondition` reads: the owner rank broadcasts them."""

    def refresh_state(self) -> tuple[SyncedTensor, ...]:
        """Other refresh outputs that non-owner ranks need, even if they do not precondition this layer."""
        return ()

    def apply_remote_refresh(self) -> bool:
        """Apply the local side effects of a refresh on another device. Idempotent."""
        return True

    @abstractmethod
    def precondition(self, matrix: Tensor) -> Tensor:
        """Multiply a gradient matrix by the inverse of the damped block."""

    def native_precondition(self) -> NativeForm | None:
        """Describe :meth:`precondition` for the native kernel that preconditions many layers in one call.

        Returns:
            The description; None if no native kernel supports the block.
        """
        return None

    def precondition_layer(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        """Precondition the gradients of weight and bias; ``bias`` is ignored if the layer has none."""
        join = self.weight_matrix
        matrix = self.precondition(join(weight, bias))
        if join.bias:
            return join.weight_part(matrix), join.bias_part(matrix)
        return (join.weight_part(matrix),)

    @abstractmethod
    def multiply(self, matrix: Tensor) -> Tensor:
        """Multiply a matrix by the block, from the current statistics and without damping."""

    @abstractmethod
    def trace(self) -> Tensor:
        """Trace of the block, from the current statistics and without damping: scalar float32."""

    def current_estimate(self, group: int) -> tuple[Tensor, ...]:
        """The averaged statistics of one group, for policies that compare them over time."""
        found: tuple[Tensor, ...] = ()
        for index in self.estimate_indices[group]:
            found = (*found, self.estimate(self.estimated_sums[index], self.weight_indices[index]))
        return found

    def estimate_shapes(self, group: int) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors that :meth:`current_estimate` returns."""
        return tuple(tuple(tensor.shape) for tensor in self.current_estimate(group))

    def factors(self) -> dict[str, NDArray[np.float32]]:
        """Moving averages of the statistics, undamped, float32, keyed by their names in the literature."""
        weights = self.weights.asnumpy()
        found: dict[str, NDArray[np.float32]] = {}
        for statistic in self.statistics:
            total, weight = statistic.estimated().asnumpy(), weights[statistic.weight]
            found[statistic.name] = total / weight if weight > 0 else total.copy()
        return found

    @abstractmethod
    def dimensions(self) -> str:
        """Sizes of the factors, for the summary."""

    def bytes(self) -> int:
        """Bytes of memory for the statistics, staged batches and inverses."""
        parameters = self.parameters_dict().values()
        return sum(int(np.prod(parameter.shape)) * 4 for parameter in parameters)


_IS_ABSTRACT = "__isabstractmethod__"
_ABSTRACT = tuple(
    name for name, member in vars(CurvatureBlock).items() if getattr(member, _IS_ABSTRACT, False)
)
