r"""Let the past of statistics fade: multiply sums and their weights by the same factor, when it is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.kernels.operator import is_native, native_operator


@dataclass(frozen=True)
class FadesWhile:
    """A Parameter whose elements, or the first of them, fade only while a flag is above 0.

    Attributes:
        parameter: what fades, float32.
        flag: scalar float32.
        leading: how many elements wait for the flag, in the order of memory; those behind them do not. None
            for all.
    """

    parameter: Parameter
    flag: Parameter
    leading: int | None = None

    def waiting(self) -> int:
        """How many elements wait for the flag.

        Returns:
            That number, at least 1.

        Raises:
            ValueError: if the Parameter has fewer than ``leading``, or that is not positive.
        """
        size = int(self.parameter.size)
        if self.leading is None:
            return size
        if not 1 <= self.leading <= size:
            raise ValueError(
                f"FadesWhile: leading must be from 1 to {size}, the elements of {self.parameter.name}, or "
                f"None, got {self.leading!r}"
            )
        return self.leading


Fading = Union[Parameter, FadesWhile]


class Decay(nn.Cell):
    r"""Multiply Parameters in place, :math:`S_i \leftarrow d_{o(i)} S_i`.

    What waits for a flag stays as it is while the flag is not above 0. The native form decides so where it
    runs; the composed form takes a branch for each flag.

    Args:
        fading: what fades: Parameters, float32, or :class:`FadesWhile` where a flag decides.
        owners: o(i), for each of them the element of ``factors`` that it is multiplied with.

    Inputs:
        - **due** (Tensor) - scalar int32; with 0 nothing happens.
        - **factors** (Tensor) - d, float32, shape (k,).

    Outputs:
        bool, True.

    Raises:
        ValueError: if more elements are to wait for a flag than a Parameter has.

    Platforms: CPU, GPU (native or composed), Ascend (composed of Mul and Assign; for flags also of Greater,
    Cast, Sub and Add).
    """

    def __init__(self, fading: Sequence[Fading], owners: Sequence[int]) -> None:
        super().__init__(auto_prefix=False)
        self.owners = tuple(owners)
        self.exists = len(self.owners) > 0
        self.faded = ParameterTuple([x.parameter if isinstance(x, FadesWhile) else x for x in fading])
        flags = {id(x.flag): x.flag for x in fading if isinstance(x, FadesWhile)}
        self.flags = ParameterTuple(flags.values())
        places = {key: place for place, key in enumerate(flags)}
        flag_of = [places[id(x.flag)] if isinstance(x, FadesWhile) else -1 for x in fading]
        leading = [x.waiting() if isinstance(x, FadesWhile) else 0 for x in fading]
        self.native = is_native("decay")
        self.kernel: Any = None
        if self.native:
            self.kernel = native_operator("decay", owners=list(owners), flags=flag_of, leading=leading)
        else:
            sizes = [parameter.size for parameter in self.faded]
            self.always = tuple(i for i, count in enumerate(leading) if count == 0)
            self.partly = tuple(i for i, count in enumerate(leading) if 0 < count < sizes[i])
            self.masks = tuple(_mask(self.faded[i].shape, leading[i]) for i in self.partly)
            whole = [i for i, count in enumerate(leading) if 0 < count == sizes[i]]
            self.whole = tuple(tuple(i for i in whole if flag_of[i] == place) for place in places.values())
            self.flag_of = tuple(flag_of)
            self.assign = ops.Assign()
            self.cast = ops.Cast()

    def construct(self, due: Tensor, factors: Tensor) -> bool:
        if self.exists:
            if self.native:
                self.kernel(due, factors, *self.faded, *self.flags)
            elif due > 0:
                self.composed(factors)
        return True

    def composed(self, factors: Tensor) -> bool:
        """The same of built-in operators, where it is due."""
        for index in self.always:
            self.fade(index, factors[self.owners[index]])
        for position in range(len(self.partly)):
            index = self.partly[position]
            kept = self.masks[position] * (1.0 - self.cast(self.flags[self.flag_of[index]] > 0, ms.float32))
            self.fade(index, kept + (1.0 - kept) * factors[self.owners[index]])
        for place in range(len(self.flags)):
            # A branch: a product by 1 would cost whole sums as much as any other.
            if self.flags[place] > 0:
                for index in self.whole[place]:
                    self.fade(index, factors[self.owners[index]])
        return True

    def fade(self, index: int, factor: Tensor) -> bool:
        """Multiply one Parameter."""
        self.assign(self.faded[index], self.faded[index] * factor)
        return True


def _mask(shape: tuple[int, ...], leading: int) -> Tensor:
    places = np.arange(int(np.prod(shape))).reshape(shape)
    return Tensor((places < leading).astype(np.float32))
