r"""Statistics of the unit-wise Fisher of normalization layers."""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.statistics.layer_statistics import CORRECTED_EIGENVALUES, LayerStatistics


class UnitWiseSecondMoment(nn.Cell):
    r"""Sums over samples of products of the per-sample gradients of :math:`\gamma` and :math:`\beta`.

    .. math::
        \nabla\gamma_{n,c} = \sum_t g_{n,c,t} \hat x_{n,c,t}, \qquad \nabla\beta_{n,c} = \sum_t g_{n,c,t}

    Args:
        positions_axis: axis of the positions t, 1 or 2.

    Inputs:
        - **x_hat** (Tensor) - normalized inputs, shape :math:`(N, C, T)` or :math:`(N, T, C)`, float32.
        - **g** (Tensor) - output gradients of the per-sample loss, same shape.

    Outputs:
        Three Tensors of shape :math:`(C,)`, float32: :math:`\sum_n \nabla\gamma_n^2`, :math:`\sum_n
        \nabla\gamma_n \nabla\beta_n`, :math:`\sum_n \nabla\beta_n^2`; sums, not means.

    Platforms: CPU, GPU, Ascend (composed of Mul and ReduceSum).
    """

    def __init__(self, positions_axis: int) -> None:
        super().__init__(auto_prefix=False)
        self.positions_axis = positions_axis
        self.reduce_sum = ops.ReduceSum()

    def construct(self, x_hat: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gamma = self.reduce_sum(g * x_hat, self.positions_axis)
        beta = self.reduce_sum(g, self.positions_axis)
        return (
            self.reduce_sum(gamma * gamma, 0),
            self.reduce_sum(gamma * beta, 0),
            self.reduce_sum(beta * beta, 0),
        )


class UnitWiseStatistics(LayerStatistics):
    r"""Stage a batch of a normalization layer's unit-wise Fisher, when the gate is open.

    The sums are those of :class:`UnitWiseSecondMoment`, and the weight is N: :math:`F_c = S_c / n`. The
    gradient of a sample is summed over positions before it is squared, for any ``sharing`` of the optimizer.
    Per-sample gradients are available here, so no approximation is needed.

    Args:
        operators: how the layer's input becomes normalized values, and output gradients get the same layout.
        options: how a batch enters the statistics.
        native: False to always run the fallback. Default: True.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's output.
        - **gate** (Parameter) - scalar int32. The statistics need both inputs and output gradients. They are
          staged if the gate requests either.
        - **squares** (Parameter) - :math:`(2, C)` for gamma and beta, **cross** (Parameter) - :math:`(C,)`,
          **record** (Parameter) - written in place.

    Outputs:
        bool, True.

    The native kernel computes x_hat only within its sums, and stores no tensor of the input's size.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of built-in operators).
    """

    operator: str | None = "unit_wise_statistics"
    beside_factors = CORRECTED_EIGENVALUES

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        squares: Parameter,
        cross: Parameter,
        record: Parameter,
    ) -> bool:
        if self.native:
            self.kernel(x, dout, gate, squares, cross, record)
            return True
        if gate % self.beside_factors > 0:
            sums = self.second_moment(self.activations(x), self.output_gradients(x, dout))
            self.stage(squares, self.stack((sums[0], sums[2])), record, 0)
            self.stage(cross, sums[1], record, 0)
            self.record_pass(x, dout, record, self.vector(float(self.samples(x))))
        return True
