"""Statistics of layers whose inputs have another first axis than the samples, such as (T, N, d)."""

from __future__ import annotations

from mindspore import Parameter, Tensor, ops

from ms_kfac.ops.statistics.layer_statistics import StatisticsOperator

_KEPT = "samples_first"


def samples_first(statistics: StatisticsOperator, axis: int) -> StatisticsOperator:
    """Return a statistics operator for inputs with the samples in another axis.

    Args:
        statistics: operator that expects samples in the first axis.
        axis: axis of the samples, 0 or 1.

    Returns:
        The operator itself for axis 0. Otherwise an operator that swaps the first two axes and calls it.
    """
    if axis == 0:
        return statistics
    # Layers that share an operator share this one too: PyNative mode compiles it once per shape.
    found: StatisticsOperator = statistics.__dict__.setdefault(_KEPT, None) or SamplesFirst(statistics)
    statistics.__dict__[_KEPT] = found
    return found


class SamplesFirst(StatisticsOperator):
    """Swap the first two axes of x and dout, then take statistics, when the gate is open.

    An input of two axes is one sample: its first axis holds locations.

    Args:
        statistics: operator that expects samples in the first axis.

    Inputs:
        Those of ``statistics``.

    Outputs:
        bool, True.

    Platforms: CPU, GPU, Ascend (composed of Transpose, in a branch, with the kernel or fallback of
    ``statistics``).
    """

    def __init__(self, statistics: StatisticsOperator) -> None:
        super().__init__()
        self.statistics = statistics
        self.inner = statistics.within_graph()
        self.input_type = statistics.input_type
        self.swap_axes = ops.Transpose()
        self.expand_dims = ops.ExpandDims()

    def construct(self, x: Tensor, dout: Tensor, gate: Parameter, *state: Parameter) -> bool:
        if gate > 0:
            self.inner(self.arranged(x), self.arranged(dout), gate, *state)
        return True

    def arranged(self, x: Tensor) -> Tensor:
        """Samples in the first axis."""
        if len(x.shape) < 3:
            return self.expand_dims(x, 0)
        return self.swap_axes(x, (1, 0, *range(2, len(x.shape))))

    def expect(self, x: Tensor, y: Tensor) -> bool:
        return self.statistics.expect(self.arranged(x), self.arranged(y))
