"""One element of a Parameter that kernels write."""

from __future__ import annotations

from mindspore import Tensor, ops

_slice = ops.Slice()
_reshape = ops.Reshape()


def element(vector: Tensor, index: int) -> Tensor:
    """``vector[index]``, read in order with the writes of the same compiled step.

    Indexing gives a view in MindSpore 2.10, which a compiled step may take before a kernel has written.

    Args:
        vector: shape (n,).
        index: which element.

    Returns:
        Scalar.
    """
    return _reshape(_slice(vector, (index,), (1,)), ())
