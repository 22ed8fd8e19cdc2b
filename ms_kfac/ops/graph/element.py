"""Read one element of a Parameter that kernels write."""

from __future__ import annotations

from mindspore import Tensor, ops

_slice = ops.Slice()
_reshape = ops.Reshape()


def element(vector: Tensor, index: int) -> Tensor:
    """Read ``vector[index]`` in order with the writes of the same compiled step.

    In MindSpore 2.10, indexing returns a view. A compiled step may read the view before a kernel has written.

    Args:
        vector: shape (n,).
        index: index of the element.

    Returns:
        Scalar.
    """
    return _reshape(_slice(vector, (index,), (1,)), ())
