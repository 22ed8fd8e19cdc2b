"""What every approximation of a layer's Fisher block offers to the optimizer."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer, LayerOperators
from ms_kfac.ops.decay import Fading
from ms_kfac.ops.flat_buffer import Share
from ms_kfac.ops.layer_precondition import NativeForm
from ms_kfac.ops.layer_refresh import LayerRefresh, NativeRefresh
from ms_kfac.ops.split_damping import SMALLEST_COUNT
from ms_kfac.ops.statistics import LayerStatistics, StatisticsOperator, StatisticsOptions
from ms_kfac.ops.weight_matrix import WeightMatrix


@cache
def layer_statistics(
    kind: Any, operators: LayerOperators, options: StatisticsOptions, **own: Any
) -> LayerStatistics:
    """The statistics operator that all layers of one geometry share.

    Args:
        kind: a subclass of LayerStatistics.
        operators: how a layer's inputs and output gradients become rows or columns.
        options: how a batch enters.
        **own: keyword arguments of that subclass, hashable.

    Returns:
        The operator.
    """
    reduce = options.sharing == "reduce"
    operator: LayerStatistics = kind(
        operators.activations(reduce),
        operators.gradients(reduce),
        operators.second_moment(),
        channels_first=operators.channels_first,
        options=options,
        geometry=operators.native_geometry(),
        **own,
    )
    return operator


class CurvatureBlock(nn.Cell):
    """Base of the curvature blocks: statistics -> factors -> inverse -> precondition.

    A subclass creates its statistics and inverses as Parameters, hands a tap the operator that fills them,
    sets ``layer_refresh`` or defines :meth:`refresh`, and defines the methods below that raise here. All but
    :meth:`native_refresh`, :meth:`factors`, :meth:`dimensions` and :meth:`bytes` run inside the compiled
    step.

    Args:
        layer: the layer whose Fisher block this is.
        prefix: what the names of the block's Parameters start with.

    Attributes:
        statistics: the operator that a tap calls with x, dout, the gate and ``state``.
        state: the four or six Parameters that ``statistics`` reads and writes in place.
        statistic_groups: which of ``state``, by index, are sums and weights that fade together; one group a
            statistic that can be refreshed on its own. Where there are two, the gate's INPUTS opens the first
            and its GRADIENTS the second.
        layer_refresh: the operator that recomputes what :meth:`precondition` multiplies with.
        size: dimension of the block: the layer's number of weights.
        not_additive: why the statistics of several devices don't add up to those of their batches' union;
            empty where they do.
        read_by_all: why a device that does not refresh this layer needs its statistics; empty where it
            doesn't.
        follows: whether :meth:`follow` does anything.
    """

    kind = "abstract"
    not_additive = ""
    read_by_all = ""
    follows = False
    statistics: StatisticsOperator
    state: tuple[Parameter, ...]
    statistic_groups: tuple[tuple[int, ...], ...]
    layer_refresh: LayerRefresh

    SMALLEST_COUNT = SMALLEST_COUNT

    def __init__(self, layer: Layer, *, prefix: str) -> None:
        super().__init__(auto_prefix=False)
        self.layer_name = layer.name
        self.name_prefix = f"{prefix}.{layer.name}"
        self.weight_matrix = WeightMatrix(
            layer.weight.shape, bias=layer.bias is not None, groups=layer.groups
        )
        self.size = sum(int(np.prod(parameter.shape)) for parameter in layer.parameters())
        self.groups = layer.groups
        self.assign = ops.Assign()
        self.smallest_count = self.SMALLEST_COUNT

    def parameter(self, name: str, value: Any) -> Parameter:
        """A float32 Parameter of this block, named after the layer, untouched by training."""
        array = np.ascontiguousarray(value, np.float32)
        return Parameter(
            Tensor(array.reshape(np.shape(value))), name=f"{self.name_prefix}.{name}", requires_grad=False
        )

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

    def written_by_tap(self) -> tuple[Parameter, ...]:
        """Those of ``state`` that a backward pass may write."""
        return self.state

    def decay(self, factor: Tensor) -> bool:
        """Let the past fade: multiply all sums and weights of the statistics by the same factor."""
        for group in range(len(self.statistic_groups)):
            self.decay_group(group, factor)
        return True

    def decay_group(self, group: int, factor: Tensor) -> bool:
        """Let the past of one statistic fade."""
        for index in self.statistic_groups[group]:
            self.assign(self.state[index], self.state[index] * factor)
        return True

    def fading(self, separate: bool) -> tuple[tuple[Fading, ...], ...] | None:
        """What :meth:`decay` multiplies by one factor, for a kernel that does so for all layers at once.

        Called where an optimizer is built, not inside a compiled step.

        Args:
            separate: whether statistics fade on their own, as by :meth:`decay_group`.

        Returns:
            The Parameters of each statistic, of all together where they are not ``separate``, some maybe
            waiting for a flag; None where fading is more than that.
        """
        plain = type(self).decay is CurvatureBlock.decay
        plain = plain and type(self).decay_group is CurvatureBlock.decay_group
        if not plain:
            return None
        groups = tuple(tuple(self.state[index] for index in group) for group in self.statistic_groups)
        return groups if separate else (tuple(parameter for group in groups for parameter in group),)

    def statistic_shares(self) -> tuple[Share, ...]:
        """All sums and weights of the statistics: what devices add up or average."""
        raise TypeError(f"{type(self).__name__} does not define statistic_shares()")

    def current_shares(self) -> tuple[Share, ...]:
        """Those of :meth:`statistic_shares` that :meth:`precondition` reads, and not the refresh alone."""
        return ()

    def shares_of(self, group: int) -> tuple[Share, ...]:
        """Those of :meth:`statistic_shares` that one statistic needs; what several share is in each."""
        own = {id(self.state[index]) for index in self.statistic_groups[group]}
        grouped = {id(self.state[index]) for indices in self.statistic_groups for index in indices}
        shares = self.statistic_shares()
        return tuple(s for s in shares if id(s.parameter) in own or id(s.parameter) not in grouped)

    def inverse_shares(self) -> tuple[Share, ...]:
        """What a refresh writes and :meth:`precondition` reads: what the device that refreshes sends."""
        raise TypeError(f"{type(self).__name__} does not define inverse_shares()")

    def state_shares(self) -> tuple[Share, ...]:
        """What else a refresh writes that devices need which neither refresh nor precondition this layer."""
        return ()

    def follow(self) -> bool:
        """Do what the refresh on another device did beside what was sent; doing so twice is harmless."""
        return True

    def precondition(self, matrix: Tensor) -> Tensor:
        """Multiply a gradient matrix by the inverse of the damped block."""
        raise TypeError(f"{type(self).__name__} does not define precondition(matrix)")

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

    def product(self, matrix: Tensor) -> Tensor:
        """Multiply a matrix by the block itself: present statistics, no damping."""
        raise TypeError(f"{type(self).__name__} does not define product(matrix)")

    def trace(self) -> Tensor:
        """Trace of the block, undamped, from the present statistics: scalar float32."""
        raise TypeError(f"{type(self).__name__} does not define trace()")

    def observed(self, group: int) -> tuple[Tensor, ...]:
        """The averaged statistics of one group, for policies that compare them over time."""
        raise TypeError(f"{type(self).__name__} does not define observed(group)")

    def observed_shapes(self, group: int) -> tuple[tuple[int, ...], ...]:
        """Shapes of what :meth:`observed` gives."""
        return tuple(tuple(tensor.shape) for tensor in self.observed(group))

    def factors(self) -> dict[str, NDArray[np.float32]]:
        """Undamped moving-averaged statistics under their names in the literature, float32."""
        raise TypeError(f"{type(self).__name__} does not define factors()")

    def dimensions(self) -> str:
        """The factors' sizes, for the summary."""
        raise TypeError(f"{type(self).__name__} does not define dimensions()")

    def bytes(self) -> int:
        """Memory that statistics and inverses take."""
        parameters = self.parameters_dict().values()
        return sum(int(np.prod(parameter.shape)) * 4 for parameter in parameters)
