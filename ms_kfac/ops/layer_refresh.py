"""What the operators share that recompute one layer's inverses, and how several of them become one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn

from ms_kfac.kernels.catalogue import CATALOGUE
from ms_kfac.kernels.operator import is_native, native_operator, present_library

Number = Union[int, float]


@dataclass(frozen=True)
class NativeRefresh:
    """One layer's part in a native operator that refreshes the inverses of many layers in one call.

    Attributes:
        operator: its name in :func:`ms_kfac.kernels.status`. Parts of equal names can go into one call.
        layer: the layer's name, for messages.
        arrays: the layer's statistics and inverses, in the kernel's order.
        attributes: the layer's numbers among the operator's attributes; the same keys for every layer.
    """

    operator: str
    layer: str
    arrays: tuple[Parameter, ...]
    attributes: Mapping[str, Number]


def joint_refresh(parts: Sequence[NativeRefresh]) -> Any:
    """The native operator that refreshes several layers, which share its threads.

    Args:
        parts: of equal operators, at least one.

    Returns:
        The operator. Its inputs are ``due`` (int32, shape () for all layers or (layers,) for each: 0 leaves a
        layer alone), the damping (scalar float32), then the arrays of all parts, one after the other.

    Raises:
        ValueError: if the parts have different operators, or there is none.
    """
    names = {part.operator for part in parts}
    if len(names) != 1:
        raise ValueError(f"joint_refresh: parts must have one operator, got {sorted(names)!r}")
    attributes: dict[str, Any] = {
        key: [part.attributes[key] for part in parts] for key in parts[0].attributes
    }
    layers = "\n".join(part.layer for part in parts)
    return native_operator(parts[0].operator, layers=layers, **attributes)


class LayerRefresh(nn.Cell):
    r"""Base of the operators that recompute what one layer's block preconditions with.

    A subclass defines :meth:`composed` and names its arrays; its kernel takes those of any number of layers.

    Args:
        operator: the kernel's name in :func:`ms_kfac.kernels.status`.
        layer: the layer's name.
        arrays: statistics and inverses, in the order of ``ARRAYS``; the last ones may be missing.
        **attributes: the layer's numbers among the kernel's attributes.

    Attributes:
        ARRAYS: their names in ``kernels/interface/refresh_layouts.h``, which has the kernels' order.
        part: this layer's part in a call for several layers; None where the composed form runs.

    Inputs:
        - **damping** (Tensor) - :math:`\lambda`, scalar float32, positive.

    Outputs:
        bool, True.
    """

    ARRAYS: tuple[str, ...] = ()

    def __init__(self, operator: str, layer: str, arrays: Sequence[Parameter], **attributes: Number) -> None:
        super().__init__(auto_prefix=False)
        self.arrays = ParameterTuple(arrays)
        self.native = is_native(operator)
        self.part: NativeRefresh | None = None
        self.kernel: Any = None
        if self.native:
            named = dict(zip(self.ARRAYS, arrays))
            order = present_library().refresh_layout(str(CATALOGUE[operator]))
            in_order = tuple(named[name] for name in order if name in named)
            self.part = NativeRefresh(operator, layer, in_order, attributes)
            self.kernel = joint_refresh((self.part,))
        self.native_arrays = ParameterTuple(self.part.arrays if self.part else ())
        self.due = Tensor(1, ms.int32)

    def construct(self, damping: Tensor) -> bool:
        if self.native:
            self.kernel(self.due, damping, *self.native_arrays)
        else:
            self.composed(damping)
        return True

    def composed(self, damping: Tensor) -> bool:
        """The same of MindSpore's own operators."""
        raise TypeError(f"{type(self).__name__} does not define composed(damping)")
