r"""Statistics of an embedding table.

The input of an embedding is one one-hot vector per id. The one-hot vectors are never materialized: their
second moment is diagonal, and its diagonal counts the ids.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.statistics.kronecker_statistics import KroneckerStatistics
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions


class IdCounts(nn.Cell):
    r"""Diagonal of the summed second moment of one-hot inputs.

    :math:`m_{n,v}` is the number of times that id v occurs among the T ids of sample n.

    * expand: :math:`\sum_n m_{n,v}`, the diagonal of :math:`\sum_{n,t} x_{n,t} x_{n,t}^{\top}`, whose
      off-diagonal elements are zero;
    * reduce: :math:`\sum_n (m_{n,v} / T)^2`, the diagonal of :math:`\sum_n \bar x_n \bar x_n^{\top}` with
      :math:`\bar x_n = \frac1T \sum_t x_{n,t}`. The off-diagonal elements (ids that occur together) are
      omitted: the full matrix would need :math:`V^2` elements.

    Args:
        vocabulary: V, the number of rows of the table.
        reduce: True for the reduce setting, False for the expand setting.
        padding: an id that is not counted; -1 for none. Default: -1.

    Inputs:
        - **ids** (Tensor) - shape :math:`(N, ...)`, int32 or int64. An id outside of :math:`[0, V)` is not
          counted. ``nn.Embedding`` with ``use_one_hot`` embeds such an id as zeros.

    Outputs:
        Tensor, shape :math:`(V,)`, float32: a sum, not a mean.

    Platforms: CPU, GPU, Ascend (composed of UnsortedSegmentSum and elementwise operators). The reduce setting
    compares all pairs of ids of a sample, which takes :math:`N T^2` elements.
    """

    def __init__(self, vocabulary: int, *, reduce: bool, padding: int = -1) -> None:
        super().__init__(auto_prefix=False)
        self.vocabulary = vocabulary
        self.padding = padding
        self.reduce = reduce
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.cast = ops.Cast()
        self.equal = ops.Equal()
        self.expand_dims = ops.ExpandDims()
        self.reduce_sum = ops.ReduceSum()
        self.logical_and = ops.LogicalAnd()
        self.segment_sum = ops.UnsortedSegmentSum()

    def construct(self, ids: Tensor) -> Tensor:
        ids = self.cast(ids, ms.int32)
        known = self.logical_and(ids >= 0, ids < self.vocabulary)
        if self.padding >= 0:
            known = self.logical_and(known, ids != self.padding)
        weights = self.cast(known, ms.float32)
        shape = self.shape(ids)
        if self.reduce and len(shape) > 1:
            samples = self.reshape(ids, (shape[0], -1))
            locations = self.shape(samples)[1]
            pairs = self.equal(self.expand_dims(samples, 2), self.expand_dims(samples, 1))
            # Each of the m occurrences of an id in a sample contributes m, so their sum is m².
            occurrences = self.reshape(self.reduce_sum(self.cast(pairs, ms.float32), 2), shape)
            weights = weights * occurrences * (1.0 / (locations * locations))
        # The kernel rejects ids outside of the table, so they are mapped to row 0 with weight zero.
        rows = ids * self.cast(known, ms.int32)
        return self.segment_sum(self.reshape(weights, (-1,)), self.reshape(rows, (-1,)), self.vocabulary)


class EmbeddingStatistics(KroneckerStatistics):
    r"""Stage a batch of an embedding table, when the gate is open.

    This operator is :class:`ms_kfac.ops.statistics.kronecker_statistics.KroneckerStatistics` with the
    diagonal of A instead of A.

    Args:
        operators: how ids become the diagonal of the summed second moment, and output gradients become rows.
        options: how a batch enters the statistics.

    Inputs:
        - **x** (Tensor) - ids, shape :math:`(N, ...)`.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the embedded ids, shape :math:`(N,
          ..., d)`.
        - **gate** (Parameter) - scalar int32, with the meaning that it has for ``KroneckerStatistics``.
        - **A** (Parameter) - :math:`(V,)`, **G** (Parameter) - :math:`(d, d)`, **record** (Parameter) -
          written in place.

    Outputs:
        bool, True.

    In the reduce setting the CPU kernel takes a time proportional to the number of ids. The CUDA kernel
    compares all pairs of a sample, as the fallback does, but stores none. Tables with a padding id run the
    fallback.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of built-in operators).
    """

    operator: str | None = "embedding_statistics"
    input_type = ms.int32

    def __init__(self, operators: Any, options: StatisticsOptions, *, native: bool = True) -> None:
        super().__init__(operators, options, native=native)
        self.padding = operators.padding
        self.expand_dims = ops.ExpandDims()

    def output_gradients(self, x: Tensor, dout: Tensor) -> Tensor:
        """Rows of output gradients. The row of a padding id has no gradient."""
        if self.padding >= 0:
            dout = dout * self.expand_dims(self.cast(x != self.padding, ms.float32), -1)
        return super().output_gradients(x, dout)

    def stage_inputs(self, x: Tensor, A: Parameter, record: Parameter) -> bool:
        """Stage the id counts."""
        return self.stage(A, self.activations(x), record, 0)
