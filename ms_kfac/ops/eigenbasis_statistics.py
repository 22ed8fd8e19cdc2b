r"""What a tap calls for EKFAC: the factors, and second moments of the gradients in their eigenbasis."""

from __future__ import annotations

from typing import Any

from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.eigenbasis_moments import EigenbasisMoments
from ms_kfac.ops.statistics import LayerStatistics, StatisticsOptions


class EigenbasisStatistics(LayerStatistics):
    r"""Add a batch to a layer's factors and to its second moments in the present basis.

    .. math::
        S_A \mathrel{+}= \sum_{n,t} p p^{\top}, \qquad S_G \mathrel{+}= \sum_{n,t} g g^{\top}, \qquad
        s \mathrel{+}= \sum_n \left(Q_G^{\top} \textstyle\sum_t g_{n,t} p_{n,t}^{\top} Q_A\right)^2

    with weights N, N T (N in the reduce setting) and N. Sharing changes the factors alone: they set the
    basis, while s is always of the true gradients of the samples (George et al. 2018, "Fast Approximate
    Natural Gradient Descent in a Kronecker-factored Eigenbasis").

    Args:
        activations: turns the layer's input into rows or columns, one a location whatever the sharing.
        gradients: turns the layer's output gradient into the same layout.
        second_moment: sums the outer products of that layout.
        channels_first: layout of ``dout``.
        options: how a batch enters.
        geometry: for the native form, from the layer's ``native_geometry()``; None: composed.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32; everything is left alone when it is 0. 4 adds to s alone; 3 to
          everything, as does 7. With separate statistics 1 adds to A alone, 2 to G and s, and 5 to A and s.
        - **A_sum**, **G_sum** (Parameter) - :math:`([g,] d, d)`, written in place.
        - **counts** (Parameter) - :math:`(3,)`: the weights of A_sum, G_sum and s_sum.
        - **Q_A**, **Q_G** (Parameter) - :math:`([g,] d, d)`, the basis as columns, only read.
        - **s_sum** (Parameter) - :math:`([g,] d_{out}, d_{in})`, written in place.

    Outputs:
        bool, True.

    The native form sums a sample's gradient over some locations at a time, and projects a side before that
    sum where the locations are fewer than the features of the other side, else after it. It keeps the
    gradients of a few samples, never those of the batch.

    Platforms: CPU, GPU (native or composed), Ascend (composed of Im2Col, MatMul or BatchMatMul, Square,
    ReduceSum and AssignAdd).
    """

    operator = "eigenbasis_statistics"

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
        super().__init__(
            activations,
            gradients,
            second_moment,
            channels_first=channels_first,
            options=options,
            geometry=geometry,
        )
        self.moments = EigenbasisMoments(columns=self.channels_first)
        self.axis = -1 if self.channels_first else 1
        self.reshape = ops.Reshape()
        self.reduce_mean = ops.ReduceMean(keep_dims=self.channels_first)
        self.reduce_sum = ops.ReduceSum(keep_dims=self.channels_first)

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        A_sum: Parameter,
        G_sum: Parameter,
        counts: Parameter,
        Q_A: Parameter,
        Q_G: Parameter,
        s_sum: Parameter,
    ) -> bool:
        if self.native:
            self.kernel(x, dout, gate, A_sum, G_sum, counts, Q_A, Q_G, s_sum)
        elif self.separate:
            if gate % 2 > 0:
                self.add_inputs(x, A_sum, counts)
            if gate % 4 > 1:
                self.add_gradients(x, dout, G_sum, counts)
            if gate > 1:
                self.add_moments(x, dout, counts, Q_A, Q_G, s_sum)
        elif gate > 0:
            self.add_moments(x, dout, counts, Q_A, Q_G, s_sum)
            if gate % 4 > 0:
                self.add_inputs(x, A_sum, counts)
                self.add_gradients(x, dout, G_sum, counts)
        return True

    def add_inputs(self, x: Tensor, A_sum: Parameter, counts: Parameter) -> bool:
        """Add a batch to the factor of inputs."""
        p = self.activations(x)
        if self.reduce:
            p = self.reduce_mean(self.by_sample(p, self.samples(x)), self.axis)
        self.assign_add(A_sum, self.second_moment(p))
        self.assign_add(counts, Tensor([float(self.samples(x)), 0.0, 0.0]))
        return True

    def add_gradients(self, x: Tensor, dout: Tensor, G_sum: Parameter, counts: Parameter) -> bool:
        """Add a batch to the factor of output gradients."""
        g = self.output_gradients(x, dout)
        if self.reduce:
            g = self.reduce_sum(self.by_sample(g, self.samples(x)), self.axis)
        self.assign_add(G_sum, self.second_moment(g))
        self.assign_add(counts, Tensor([0.0, float(self.samples(x) * self.locations(dout)), 0.0]))
        return True

    def add_moments(
        self, x: Tensor, dout: Tensor, counts: Parameter, Q_A: Parameter, Q_G: Parameter, s_sum: Parameter
    ) -> bool:
        """Add a batch to the second moments."""
        p, g = self.activations(x), self.output_gradients(x, dout)
        self.assign_add(s_sum, self.moments(p, g, Q_A, Q_G, self.samples(x)))
        self.assign_add(counts, Tensor([0.0, 0.0, float(self.samples(x))]))
        return True

    def by_sample(self, rows: Tensor, samples: int) -> Tensor:
        """Rows with an axis of samples before that of locations; columns have one."""
        if self.channels_first:
            return rows
        return self.reshape(rows, (samples, -1, self.shape(rows)[1]))
