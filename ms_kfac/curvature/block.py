"""What every approximation of a layer's Fisher block offers to the optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from numpy.typing import NDArray

from ms_kfac.capture.layer import OTHER, Layer, LayerOperators
from ms_kfac.ops.element import element
from ms_kfac.ops.factored_tikhonov import SMALLEST_COUNT
from ms_kfac.ops.flat_buffer import Share
from ms_kfac.ops.layer_precondition import NativeForm
from ms_kfac.ops.layer_refresh import LayerRefresh, NativeRefresh
from ms_kfac.ops.statistics import (
    EVERYTHING,
    GRADIENTS,
    INPUTS,
    PERIOD,
    STAGED_WEIGHTS,
    LayerStatistics,
    StatisticsOperator,
    StatisticsOptions,
)
from ms_kfac.ops.weight_matrix import WeightMatrix
from ms_kfac.statistics.commit import RootAverage
from ms_kfac.statistics.statistic import Statistic


@cache
def layer_statistics(kind: Any, operators: LayerOperators, options: StatisticsOptions) -> LayerStatistics:
    """The statistics operator that all layers of one geometry share.

    Args:
        kind: a subclass of LayerStatistics.
        operators: how a layer's inputs and output gradients become rows or columns.
        options: how a batch enters.

    Returns:
        The operator.
    """
    operator: LayerStatistics = kind(operators, options)
    return operator


class CurvatureBlock(nn.Cell):
    """Base of the curvature blocks: statistics -> factors -> inverse -> precondition.

    A subclass declares its statistics with :meth:`add_statistic` and :meth:`create_weights`, names the
    operator with which a tap stages them, creates its inverses as Parameters, sets ``layer_refresh`` or
    defines :meth:`refresh`, and defines the abstract methods. What follows from the statistics (moving
    averages, :meth:`factors`, what ranks exchange, what policies compare, bytes) is derived here. All but
    :meth:`native_refresh`, :meth:`factors`, :meth:`dimensions` and :meth:`bytes` run inside the compiled
    step.

    An optimizer calls ``SomeBlock(layer, prefix=..., options=..., period=...)``, and likewise any function
    given as a value of the option ``blocks``. The arguments are the layer (:class:`ms_kfac.capture.Layer`),
    the prefix of the Parameters' names, how a batch enters the statistics
    (:class:`ms_kfac.ops.statistics.StatisticsOptions`), and the number of announced passes per batch.

    Args:
        layer: the layer whose Fisher block this is.
        prefix: what the names of the block's Parameters start with.

    Attributes:
        operator: what a tap calls with x, dout, the gate and ``staged``.
        statistics: what is averaged over batches.
        record: describes the staged batch, float32: see ``kernels/interface/staged_batch.h``.
        weights: the weights of the averages, float32.
        staged: the 2, 3, 4 or 6 Parameters that ``operator`` reads and writes in place, in its order. A
            Parameter outside all layers has two, a batch and the record. Its operator is called with the
            number of samples instead of x, and with the gradient of the mean loss instead of dout.
        roots: that the averages are of roots of the batches' traces; None where they are of the sums.
        layer_refresh: the operator that recomputes what :meth:`precondition` multiplies with.
        size: dimension of the block: the layer's number of weights.
        not_additive: why the statistics of several devices don't add up to those of their batches' union;
            empty where they do.
        read_by_all: why a device that does not refresh this layer needs its statistics; empty where it
            doesn't.
        follows: whether :meth:`follow` does anything.
        used_before_refresh: whether a step uses the block before it refreshes it, as in EKFAC.

    Raises:
        TypeError: if a subclass lacks an abstract method, or does not serve the layer.
    """

    kind = "abstract"
    not_additive = ""
    read_by_all = ""
    follows = False
    used_before_refresh = False
    operator: StatisticsOperator
    statistics: tuple[Statistic, ...]
    staged: tuple[Parameter, ...]
    roots: RootAverage | None = None
    layer_refresh: LayerRefresh

    SMALLEST_COUNT = SMALLEST_COUNT

    @classmethod
    def serves(cls, layer: Layer) -> bool:
        """Whether a layer can have such a block.

        Args:
            layer: the layer; of the kind "other" where it stands for a Parameter outside all layers.

        Returns:
            Whether the constructor takes it.
        """
        return layer.kind not in ("embedding", "normalization", OTHER)

    def __init__(self, layer: Layer, *, prefix: str) -> None:
        # A Cell's metaclass is not ABCMeta, which would refuse the class itself.
        missing = [name for name in _ABSTRACT if getattr(getattr(type(self), name), _IS_ABSTRACT, False)]
        if missing:
            raise TypeError(f"{type(self).__name__} must define {', '.join(missing)}")
        if not self.serves(layer):
            groups = f" with {layer.groups} groups" if layer.groups > 1 else ""
            raise TypeError(
                f"{type(self).__name__} can't serve {layer.name}, which is of the kind {layer.kind!r}{groups}"
            )
        super().__init__(auto_prefix=False)
        self.layer_name = layer.name
        self.name_prefix = f"{prefix}.{layer.name}"
        self.weight_matrix = WeightMatrix(
            layer.weight.shape, bias=layer.bias is not None, groups=layer.groups
        )
        self.size = sum(int(np.prod(parameter.shape)) for parameter in layer.parameters())
        self.groups = layer.groups
        self.statistics = ()
        self.assign = ops.Assign()
        self.slice = ops.Slice()
        self.reshape = ops.Reshape()
        self.maximum = ops.Maximum()
        self.smallest_count = self.SMALLEST_COUNT

    def parameter(self, name: str, value: Any) -> Parameter:
        """A float32 Parameter of this block, named after the layer, untouched by training."""
        array = np.ascontiguousarray(value, np.float32)
        return Parameter(
            Tensor(array.reshape(np.shape(value))), name=f"{self.name_prefix}.{name}", requires_grad=False
        )

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
    ) -> Statistic:
        """Declare a statistic; its Parameters become attributes: ``<name>_batch`` and ``<name>_sum``.

        Args:
            name: its name in the literature.
            shape: its shape.
            weight: which of the weights divides it.
            gate: the gate's code that takes it.
            power: of how many factors of the output gradient it is a product.
            symmetric: whether its last two axes are those of symmetric matrices.
            averaged: False where the last batch is all that is used.

        Returns:
            The statistic.
        """
        batch = self.parameter(f"{name}_batch", np.zeros(shape))
        setattr(self, f"{name}_batch", batch)
        average = None
        if averaged:
            average = self.parameter(f"{name}_sum", np.zeros(self.averaged_shape(name, shape)))
            setattr(self, f"{name}_sum", average)
        statistic = Statistic(name, batch, average, weight, gate, power, symmetric)
        self.statistics = (*self.statistics, statistic)
        return statistic

    def averaged_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a statistic's average, that of its batch unless a subclass says otherwise."""
        return shape

    def create_weights(self, count: int, period: int = 1) -> None:
        """Create the record of staged batches, and the weights of the averages.

        Args:
            count: number of weights.
            period: passes whose batches add up to one, where that is announced.
        """
        record = np.zeros(STAGED_WEIGHTS + count)
        record[PERIOD] = period
        self.record = self.parameter("record", record)
        self.weights = self.parameter("weights", np.zeros(count))
        # What observed() reads, in the forms that a compiled step takes.
        self.estimated_sums = ParameterTuple([statistic.estimated() for statistic in self.statistics])
        self.weight_indices = tuple(statistic.weight for statistic in self.statistics)
        places = {id(statistic): index for index, statistic in enumerate(self.statistics)}
        self.observed_indices = tuple(
            tuple(places[id(statistic)] for statistic in group) for group in self.groups_of_statistics()
        )

    def check_complete(self) -> None:
        """Check that a subclass's constructor has made all that the optimizer uses.

        Raises:
            TypeError: if something is missing.
        """
        missing = [name for name in ("operator", "staged", "record", "weights") if not hasattr(self, name)]
        if not self.statistics:
            missing.append("a statistic (add_statistic)")
        if type(self).refresh is CurvatureBlock.refresh and not hasattr(self, "layer_refresh"):
            missing.append("layer_refresh, or define refresh()")
        if missing:
            raise TypeError(f"{type(self).__name__}.__init__ must create {', '.join(missing)}")

    def check_checkpoint(self, checkpoint: Mapping[str, Parameter]) -> None:
        """Check that a state can be loaded after steps have been taken.

        Args:
            checkpoint: Parameters by name.

        Raises:
            ValueError: if the compiled steps can't go on from it.
        """

    def groups_of_statistics(self) -> tuple[tuple[Statistic, ...], ...]:
        """Statistics that are refreshed together: of inputs and of gradients, or all where one is joint."""
        if any(statistic.gate == EVERYTHING for statistic in self.statistics):
            return (self.statistics,)
        sides = (
            tuple(statistic for statistic in self.statistics if statistic.gate == code)
            for code in (INPUTS, GRADIENTS)
        )
        return tuple(side for side in sides if side)

    def estimate(self, total: Tensor, weight: int) -> Tensor:
        """A sum over its weight; zeros before the first statistics."""
        return total / self.maximum(element(self.weights, weight), self.smallest_count)

    def refresh(self, damping: Tensor) -> bool:
        """Recompute what :meth:`precondition` multiplies with from the present statistics."""
        return self.layer_refresh(damping)

    def native_refresh(self) -> NativeRefresh | None:
        """This layer's part in a native call that refreshes many layers; not for use inside a graph.

        Returns:
            The part; None where the refresh is composed, or where a subclass defines :meth:`refresh`
            itself.
        """
        own = type(self).refresh is not CurvatureBlock.refresh
        return None if own else self.layer_refresh.part

    def statistic_shares(self) -> tuple[Share, ...]:
        """All sums and weights of the statistics: what devices add up or average."""
        return (*(statistic.share() for statistic in self.statistics), Share(self.weights))

    def current_shares(self) -> tuple[Share, ...]:
        """Those of :meth:`statistic_shares` that :meth:`precondition` reads, and not the refresh alone."""
        return ()

    def shares_of(self, group: int) -> tuple[Share, ...]:
        """Those of :meth:`statistic_shares` that one statistic needs; the weights are in each."""
        own = self.groups_of_statistics()[group]
        return (*(statistic.share() for statistic in own), Share(self.weights))

    @abstractmethod
    def inverse_shares(self) -> tuple[Share, ...]:
        """What a refresh writes and :meth:`precondition` reads: what the device that refreshes sends."""

    def state_shares(self) -> tuple[Share, ...]:
        """What else a refresh writes that devices need which neither refresh nor precondition this layer."""
        return ()

    def follow(self) -> bool:
        """Apply the local side effects of a refresh on another device. Idempotent."""
        return True

    @abstractmethod
    def precondition(self, matrix: Tensor) -> Tensor:
        """Multiply a gradient matrix by the inverse of the damped block."""

    def native_precondition(self) -> NativeForm | None:
        """The same for a kernel that preconditions many layers in one call; None where there is none."""
        return None

    def precondition_layer(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        """Preconditioned gradients of the layer's parameters; ``bias`` is ignored where it has none."""
        join = self.weight_matrix
        matrix = self.precondition(join(weight, bias))
        if join.bias:
            return join.weight_part(matrix), join.bias_part(matrix)
        return (join.weight_part(matrix),)

    @abstractmethod
    def product(self, matrix: Tensor) -> Tensor:
        """Multiply a matrix by the block itself: present statistics, no damping."""

    @abstractmethod
    def trace(self) -> Tensor:
        """Trace of the block, undamped, from the present statistics: scalar float32."""

    def observed(self, group: int) -> tuple[Tensor, ...]:
        """The averaged statistics of one group, for policies that compare them over time."""
        found: tuple[Tensor, ...] = ()
        for index in self.observed_indices[group]:
            found = (*found, self.estimate(self.estimated_sums[index], self.weight_indices[index]))
        return found

    def observed_shapes(self, group: int) -> tuple[tuple[int, ...], ...]:
        """Shapes of what :meth:`observed` gives."""
        return tuple(tuple(tensor.shape) for tensor in self.observed(group))

    def factors(self) -> dict[str, NDArray[np.float32]]:
        """Undamped moving-averaged statistics under their names in the literature, float32."""
        weights = self.weights.asnumpy()
        found: dict[str, NDArray[np.float32]] = {}
        for statistic in self.statistics:
            total, weight = statistic.estimated().asnumpy(), weights[statistic.weight]
            found[statistic.name] = total / weight if weight > 0 else total.copy()
        return found

    @abstractmethod
    def dimensions(self) -> str:
        """The factors' sizes, for the summary."""

    def bytes(self) -> int:
        """Memory that statistics, staged batches and inverses take."""
        parameters = self.parameters_dict().values()
        return sum(int(np.prod(parameter.shape)) * 4 for parameter in parameters)


_IS_ABSTRACT = "__isabstractmethod__"
_ABSTRACT = tuple(
    name for name, member in vars(CurvatureBlock).items() if getattr(member, _IS_ABSTRACT, False)
)
