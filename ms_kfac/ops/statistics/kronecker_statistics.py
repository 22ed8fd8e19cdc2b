r"""Statistics of the Kronecker factors (K-FAC).

A batch is staged as sums and their weights, for example :math:`S_A = \sum p p^{\top}` and :math:`n_A`. A
factor is then :math:`A = S_A / n_A`, and micro-batches of different sizes can be added.
"""

from __future__ import annotations

from mindspore import Parameter, Tensor

from ms_kfac.ops.statistics.layer_statistics import CORRECTED_EIGENVALUES, LayerStatistics


class FactorStatistics(LayerStatistics):
    """Base of the operators that stage A and G as :math:`(d, d)`."""

    def stage_inputs(self, x: Tensor, A: Parameter, record: Parameter) -> bool:
        """Stage the sum over inputs."""
        return self.stage(A, self.second_moment(self.activations(x)), record, 0)

    def stage_gradients(self, x: Tensor, dout: Tensor, G: Parameter, record: Parameter) -> bool:
        """Stage the sum over output gradients."""
        return self.stage(G, self.second_moment(self.output_gradients(x, dout)), record, 1)


class KroneckerStatistics(FactorStatistics):
    r"""Stage the sums and weights of a batch, when the gate is open.

    .. math::
        S_A = \sum_{n,t} p p^{\top}, \qquad S_G = \sum_{n,t} g g^{\top}

    With T locations per sample, the weights are :math:`n_A = N` and :math:`n_G = N T` in the expand setting
    (Grosse & Martens 2016, section 3: :math:`A = \frac1N \sum_{n,t} p p^{\top}`,
    :math:`G = \frac1{NT} \sum_{n,t} g g^{\top}`) and N for both in the reduce setting
    (Eschenhagen et al. 2023, section 3.3).

    Args:
        operators: how the layer's input and output gradient become rows or columns.
        options: how a batch enters the statistics.
        native: False to always run the fallback. Default: True.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32. Nothing is staged if it is 0 or requests only second moments
          in the eigenbasis. With separate statistics, 1 stages only A, 2 stages only G, and 3 stages both.
        - **A**, **G** (Parameter) - :math:`([g,] d, d)`, written in place.
        - **record** (Parameter) - float32, with the weights of A and G, written in place.

    Outputs:
        bool, True.

    The native kernel neither materializes all patches nor stores one product per sample. For a convolution
    with stride and dilation 1, it computes one product of shifted images for all pairs of kernel elements at
    the same distance, and corrects the borders. For other convolutions it multiplies some patches at a time.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of Im2Col, MatMul or BatchMatMul,
    Assign).
    """

    operator: str | None = "kronecker_statistics"
    weights = 2
    beside_factors = CORRECTED_EIGENVALUES

    def construct(
        self, x: Tensor, dout: Tensor, gate: Parameter, A: Parameter, G: Parameter, record: Parameter
    ) -> bool:
        if self.native:
            self.kernel(x, dout, gate, A, G, record)
            return True
        asked = gate % self.beside_factors
        if asked > 0:
            samples = float(self.samples(x))
            taken = self.vector(samples, samples * self.locations(x, dout))
            if self.separate:
                inputs, gradients = asked % 2, asked // 2
                if inputs > 0:
                    self.stage_inputs(x, A, record)
                if gradients > 0:
                    self.stage_gradients(x, dout, G, record)
                taken = taken * self.cast(self.stack((inputs, gradients)), taken.dtype)
            else:
                self.stage_inputs(x, A, record)
                self.stage_gradients(x, dout, G, record)
            self.record_pass(x, dout, record, taken)
        return True
