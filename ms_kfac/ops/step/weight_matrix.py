r"""Convert a layer's gradient to the matrix that its Kronecker block multiplies, and back.

The weight gradient becomes :math:`dW \in \mathbb{R}^{d_{out} \times d_{in}}`. The bias gradient becomes the
last column, which matches the homogeneous coordinate of the activations (Martens & Grosse 2015, section 2.1).
A grouped convolution becomes a batch of g such matrices.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class WeightMatrix(nn.Cell):
    r"""Join weight and bias gradients into a matrix, and split a matrix into them.

    Args:
        weight_shape: shape of the weight Parameter, output channels first; () for a matrix of one element.
        bias: whether the layer has a bias.
        groups: number of channel groups g.

    Attributes:
        weight_shape: shape of the weight.
        bias_shape: shape of the bias.
        input_first: whether the weight has input channels first.
    """

    input_first = False

    def __init__(self, weight_shape: tuple[int, ...], *, bias: bool, groups: int) -> None:
        super().__init__(auto_prefix=False)
        self.weight_shape = tuple(weight_shape)
        self.bias = bias
        rows = int(weight_shape[0]) if weight_shape else 1
        outputs = rows // groups
        leading = () if groups == 1 else (groups,)
        self.matrix_shape = (*leading, outputs, -1)
        self.column_shape = (*leading, outputs, 1)
        self.bias_shape: tuple[int, ...] = (rows,)
        self.reshape = ops.Reshape()
        self.concat = ops.Concat(axis=-1)

    def construct(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the matrix :math:`([g,] d_{out} / g, d_{in} [+1])`. Without a bias, ``bias`` is ignored."""
        matrix = self.reshape(weight, self.matrix_shape)
        if self.bias:
            matrix = self.concat((matrix, self.reshape(bias, self.column_shape)))
        return matrix

    def weight_part(self, matrix: Tensor) -> Tensor:
        """Return the weight part of a matrix, in the weight's shape."""
        if self.bias:
            matrix = matrix[..., :-1]
        return self.reshape(matrix, self.weight_shape)

    def bias_part(self, matrix: Tensor) -> Tensor:
        """Return the bias part of a matrix, in the bias's shape."""
        return self.reshape(matrix[..., -1], self.bias_shape)


class InputFirstMatrix(WeightMatrix):
    r"""Matrix of a weight without bias that has input channels first, as that of a transposed convolution.

    Args:
        weight_shape: shape of the weight, input channels first.
        groups: number of channel groups g.
    """

    input_first = True

    def __init__(self, weight_shape: tuple[int, ...], *, groups: int) -> None:
        super().__init__(weight_shape, bias=False, groups=groups)
        self.swap_axes = ops.Transpose()
        self.swapped = (1, 0) if groups == 1 else (0, 2, 1)

    def construct(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the matrix :math:`([g,] d_{out}, d_{in})`. ``bias`` is ignored."""
        return self.swap_axes(self.reshape(weight, self.matrix_shape), self.swapped)

    def weight_part(self, matrix: Tensor) -> Tensor:
        """Return the matrix in the weight's shape."""
        return self.reshape(self.swap_axes(matrix, self.swapped), self.weight_shape)


class UnitMatrix(WeightMatrix):
    r"""Gradient matrix of a normalization layer, columns :math:`d\gamma` and, if it exists, :math:`d\beta`.

    The matrix has one row per channel.

    Args:
        shape: shape of gamma and beta. Several axes are flattened into C channels.
        bias: whether the layer has beta. Default: True.
    """

    def __init__(self, shape: tuple[int, ...], *, bias: bool = True) -> None:
        super().__init__(shape, bias=bias, groups=1)
        self.matrix_shape = (-1, 1)
        self.column_shape = (-1, 1)
        self.bias_shape = self.weight_shape
