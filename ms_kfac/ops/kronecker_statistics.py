r"""The operator that a tap calls: add one batch to a layer's Kronecker statistics, when its gate is open.

The statistics are kept as weighted sums with their weights, :math:`S_A = \sum p p^{\top}` and :math:`n_A`, so
that a factor is :math:`A = S_A / n_A`. Adding a micro-batch is then one accumulation whatever its size, and a
moving average is one multiplication of sum and weight by the same number, which leaves the factor as it is
(see :class:`ms_kfac.refresh.moving_average.MovingAverage`).
"""

from __future__ import annotations

from mindspore import Parameter, Tensor

from ms_kfac.ops.statistics import BESIDE_FACTORS, LayerStatistics


class KroneckerStatistics(LayerStatistics):
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
        channels_first: layout of ``dout``.
        options: how a batch enters.
        geometry: for the native form, from the layer's ``native_geometry()``; None: composed.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32; the statistics are left alone when it is 0 or asks for what is
          beside the factors alone. With separate statistics, 1 adds to A alone, 2 to G alone and 3 to both.
        - **A_sum**, **G_sum** (Parameter) - :math:`(d, d)`, written in place; **A_count**, **G_count**
          (Parameter) - scalars, likewise.

    Outputs:
        bool, True.

    The native form neither writes out all patches nor keeps a product a sample. Of a convolution with stride
    and dilation 1 it takes one product of shifted images for all pairs of kernel elements with the same
    distance, and puts the borders right; of others it multiplies some patches at a time.

    Platforms: CPU, GPU (native or composed), Ascend (composed of Im2Col, MatMul or BatchMatMul, AssignAdd).
    """

    operator = "kronecker_statistics"
    beside_factors = BESIDE_FACTORS

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
        if self.native:
            self.kernel(x, dout, gate, A_sum, A_count, G_sum, G_count)
            return True
        asked = gate % self.beside_factors
        if self.separate:
            if asked % 2 > 0:
                self.add_inputs(x, A_sum, A_count)
            if asked > 1:
                self.add_gradients(x, dout, G_sum, G_count)
        elif asked > 0:
            self.add_inputs(x, A_sum, A_count)
            self.add_gradients(x, dout, G_sum, G_count)
        return True

    def add_inputs(self, x: Tensor, A_sum: Parameter, A_count: Parameter) -> bool:
        """Add a batch to the statistics of inputs."""
        self.assign_add(A_sum, self.second_moment(self.activations(x)))
        self.assign_add(A_count, float(self.samples(x)))
        return True

    def add_gradients(self, x: Tensor, dout: Tensor, G_sum: Parameter, G_count: Parameter) -> bool:
        """Add a batch to the statistics of output gradients."""
        self.assign_add(G_sum, self.second_moment(self.output_gradients(x, dout)))
        self.assign_add(G_count, float(self.samples(x) * self.locations(dout)))
        return True
