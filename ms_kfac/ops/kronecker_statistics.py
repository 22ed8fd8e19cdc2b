r"""The operator that a tap calls: add one batch to a layer's Kronecker statistics, when its gate is open.

The statistics are kept as weighted sums with their weights, :math:`S_A = \sum p p^{\top}` and :math:`n_A`, so
that a factor is :math:`A = S_A / n_A`. Adding a micro-batch is then one accumulation whatever its size, and a
moving average is one multiplication of sum and weight by the same number, which leaves the factor as it is
(see :class:`ms_kfac.refresh.moving_average.MovingAverage`).
"""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.statistics import StatisticsOperator


class KroneckerStatistics(StatisticsOperator):
    r"""Add a batch to a layer's sums and weights, when the gate is open.

    .. math::
        S_A \mathrel{+}= \sum_{n,t} p p^{\top}, \qquad S_G \mathrel{+}= \sum_{n,t} g g^{\top}

    With T locations a sample, the weights are :math:`n_A \mathrel{+}= N` and :math:`n_G \mathrel{+}= N T` in
    the expand setting (Grosse & Martens 2016, section 3: :math:`A = \frac1N \sum_{n,t} p p^{\top}`,
    :math:`G = \frac1{NT} \sum_{n,t} g g^{\top}`) and N for both in the reduce setting
    (Eschenhagen et al. 2023, section 3.3).

    Args:
        activations: turns the layer's input into rows or columns.
        gradients: turns the layer's output gradient into the same layout.
        second_moment: sums the outer products of that layout.
        gradient_scale: what brings one sample's ``dout`` to the gradient of the per-sample loss. With mean
            reduction it is multiplied by the number of samples N of the batch, see ``mean_reduction``.
        mean_reduction: whether the loss averages over the batch: :math:`g = N \cdot scale \cdot dout`, else
            :math:`g = scale \cdot dout`.
        reduce: the reduce setting of weight sharing, else expand.
        channels_first: whether ``dout`` is :math:`(N, c, ...)` (convolutions) or :math:`(N, ..., c)` (dense
            layers).

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32; the statistics are left alone when it is 0.
        - **A_sum**, **G_sum** (Parameter) - :math:`(d, d)`, written in place; **A_count**, **G_count**
          (Parameter) - scalars, likewise.

    Outputs:
        bool, True.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(
        self,
        activations: nn.Cell,
        gradients: nn.Cell,
        second_moment: nn.Cell,
        *,
        gradient_scale: float,
        mean_reduction: bool,
        reduce: bool,
        channels_first: bool,
    ) -> None:
        super().__init__()
        self.activations = activations
        self.gradients = gradients
        self.second_moment = second_moment
        self.gradient_scale = gradient_scale
        self.mean_reduction = mean_reduction
        self.reduce = reduce
        self.channels_first = channels_first
        self.shape = ops.Shape()
        self.mul = ops.Mul()
        self.assign_add = ops.AssignAdd()

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        A_sum: Parameter,
        A_count: Parameter,
        G_sum: Parameter,
        G_count: Parameter,
    ) -> bool:
        if gate > 0:
            samples = self.shape(x)[0] if len(self.shape(x)) > 1 else 1
            scale = self.gradient_scale
            if self.mean_reduction:
                scale = scale * samples
            g = self.gradients(dout)
            if scale != 1.0:
                # Scaled before the product: squares of a large batch's mean-loss gradients could underflow in
                # float32.
                g = self.mul(g, scale)
            self.assign_add(A_sum, self.second_moment(self.activations(x)))
            self.assign_add(G_sum, self.second_moment(g))
            self.assign_add(A_count, float(samples))
            self.assign_add(G_count, float(samples * self.locations(dout)))
        return True

    def locations(self, dout: Tensor) -> int:
        """Weight-sharing locations a sample that count for G."""
        if self.reduce:
            return 1
        shape = self.shape(dout)
        shared = shape[2:] if self.channels_first else shape[1:-1]
        locations = 1
        for size in shared:
            locations = locations * size
        return locations
