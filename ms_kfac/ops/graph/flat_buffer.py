"""Pack Parameters into one vector for a single collective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.ops.linalg.packed_triangle import PackedTriangle, packed_size


@dataclass(frozen=True)
class SyncedTensor:
    """A Parameter that ranks exchange.

    Attributes:
        parameter: the Parameter, float32.
        symmetric: whether the last two axes hold symmetric matrices. Only one triangle of each is sent.
    """

    parameter: Parameter
    symmetric: bool = False

    def size(self) -> int:
        """Number of elements sent.

        Returns:
            The number of elements, n (n + 1) / 2 for each symmetric n x n matrix.
        """
        shape = self.parameter.shape
        count = int(np.prod(shape, dtype=np.int64))
        if not self.symmetric:
            return count
        return count // (shape[-1] * shape[-1]) * packed_size(shape[-1])


class FlatBuffer(nn.Cell):
    """Pack Parameters into a vector, and unpack a vector into them.

    Args:
        shares: the Parameters, at least one unless ``length`` is given.
        length: length of the vector, padded with zeros at the end. None for no padding. Default: None.

    Attributes:
        size: number of packed elements, without padding.
        length: length of the vector.

    Outputs:
        Tensor, shape (length,), float32: the current values.

    Platforms: CPU, GPU, Ascend (composed of Reshape, Concat, Slice, Assign and the operators of
    :class:`ms_kfac.ops.linalg.packed_triangle.PackedTriangle`).
    """

    def __init__(self, shares: Sequence[SyncedTensor], length: int | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple([share.parameter for share in shares])
        self.sizes = tuple(share.size() for share in shares)
        self.size = sum(self.sizes)
        self.length = self.size if length is None else length
        self.padding = self.length - self.size
        self.begins = tuple(sum(self.sizes[:index]) for index in range(len(self.sizes)))
        self.shapes = tuple(tuple(share.parameter.shape) for share in shares)
        triangles: list[nn.Cell] = []
        places = []
        for share in shares:
            places.append(len(triangles) if share.symmetric else -1)
            if share.symmetric:
                triangles.append(PackedTriangle(share.parameter.shape))
        self.places = tuple(places)
        self.triangles = nn.CellList(triangles, auto_prefix=False)
        self.reshape = ops.Reshape()
        self.concat = ops.Concat()
        self.slice = ops.Slice()
        self.zeros = ops.Zeros()
        self.assign = ops.Assign()

    def construct(self) -> Tensor:
        parts: tuple[Tensor, ...] = ()
        for index in range(len(self.sizes)):
            if self.places[index] >= 0:
                part = self.triangles[self.places[index]](self.parameters[index])
            else:
                part = self.reshape(self.parameters[index], (self.sizes[index],))
            parts = (*parts, part)
        if self.padding > 0:
            parts = (*parts, self.zeros((self.padding,), ms.float32))
        return self.concat(parts)

    def write(self, flat: Tensor, begin: int = 0) -> Any:
        """Unpack a vector into the Parameters.

        Args:
            flat: a vector that contains the packed values.
            begin: offset of the packed values. Default: 0.

        Returns:
            True.
        """
        for index in range(len(self.sizes)):
            part = self.slice(flat, (begin + self.begins[index],), (self.sizes[index],))
            if self.places[index] >= 0:
                value = self.triangles[self.places[index]].unpack(part)
            else:
                value = self.reshape(part, self.shapes[index])
            self.assign(self.parameters[index], value)
        return True
