r"""The operator that the tap of an embedding table calls: add one batch to its statistics.

The input of an embedding is a one-hot vector an id, and nobody writes it out: the second moment of one-hot
vectors is diagonal, and its diagonal counts ids.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.kronecker_statistics import KroneckerStatistics


class IdCounts(nn.Cell):
    r"""Diagonal of the summed second moment of one-hot inputs.

    With :math:`m_{n,v}` how often id v occurs among the T ids of sample n:

    * expand: :math:`\sum_n m_{n,v}`, the diagonal of :math:`\sum_{n,t} x_{n,t} x_{n,t}^{\top}`, which has
      nothing off its diagonal;
    * reduce: :math:`\sum_n (m_{n,v} / T)^2`, the diagonal of :math:`\sum_n \bar x_n \bar x_n^{\top}` with
      :math:`\bar x_n = \frac1T \sum_t x_{n,t}`. What that matrix has off its diagonal (ids that occur
      together) is left out: it would need :math:`V^2` numbers.

    Args:
        vocabulary: V, the number of rows of the table.
        reduce: the reduce setting.

    Inputs:
        - **ids** (Tensor) - shape :math:`(N, ...)`, int32 or int64. An id outside of :math:`[0, V)` is not
          counted; with ``use_one_hot`` ``nn.Embedding`` gives it a vector of zeros.

    Outputs:
        Tensor, shape :math:`(V,)`, float32: a sum, not a mean.

    Platforms: CPU, GPU, Ascend (composed of UnsortedSegmentSum and element-wise operators; the reduce setting
    compares the ids of a sample in pairs, :math:`N T^2` numbers).
    """

    def __init__(self, vocabulary: int, *, reduce: bool) -> None:
        super().__init__(auto_prefix=False)
        self.vocabulary = vocabulary
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
        weights = self.cast(known, ms.float32)
        shape = self.shape(ids)
        if self.reduce and len(shape) > 1:
            samples = self.reshape(ids, (shape[0], -1))
            locations = self.shape(samples)[1]
            pairs = self.equal(self.expand_dims(samples, 2), self.expand_dims(samples, 1))
            # Each of the m occurrences of an id in a sample carries m, together m².
            occurrences = self.reshape(self.reduce_sum(self.cast(pairs, ms.float32), 2), shape)
            weights = weights * occurrences * (1.0 / (locations * locations))
        # The kernel refuses ids outside of the table, so they go to row 0 with weight zero.
        rows = ids * self.cast(known, ms.int32)
        return self.segment_sum(self.reshape(weights, (-1,)), self.reshape(rows, (-1,)), self.vocabulary)


class EmbeddingStatistics(KroneckerStatistics):
    r"""Stage a batch of an embedding table, when the gate is open.

    As :class:`ms_kfac.ops.kronecker_statistics.KroneckerStatistics`, with the diagonal of A instead of A.

    Args:
        operators: turns ids into the diagonal of the summed second moment, and output gradients into rows.
        options: how a batch enters.

    Inputs:
        - **x** (Tensor) - ids, shape :math:`(N, ...)`.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the embedded ids, shape :math:`(N,
          ..., d)`.
        - **gate** (Parameter) - scalar int32, as for the other operator.
        - **A** (Parameter) - :math:`(V,)`, **G** (Parameter) - :math:`(d, d)`, **record** (Parameter) -
          written in place.

    Outputs:
        bool, True.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    operator: str | None = None
    input_type = ms.int32

    def samples(self, x: Tensor) -> int:
        """Samples N of a batch of ids, which may have no further axis."""
        shape = self.shape(x)
        return shape[0] if len(shape) > 0 else 1

    def stage_inputs(self, x: Tensor, A: Parameter, record: Parameter) -> bool:
        """Stage the counts of ids."""
        return self.stage(A, self.activations(x), record, 0)
