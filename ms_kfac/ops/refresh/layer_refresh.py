"""Base of the operators that refresh one layer's inverses, and the fused refresh of several layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn

from ms_kfac.kernels.operator import is_native, native_operator, present_library
from ms_kfac.kernels.registry import REGISTRY

Number = Union[int, float]


@dataclass(frozen=True)
class RefreshSpec:
    """One layer's arguments to a native operator that refreshes many layers in one call.

    Attributes:
        operator: the operator's name in :func:`ms_kfac.kernels.status`. Only equal operators can be fused.
        layer: the layer's name, for messages.
        arrays: the layer's statistics and inverses, in the kernel's order.
        attributes: the operator's per-layer attributes. All layers have the same keys.
    """

    operator: str
    layer: str
    arrays: tuple[Parameter, ...]
    attributes: Mapping[str, Number]


def fused_refresh(parts: Sequence[RefreshSpec], reporter: int = 0) -> Any:
    """Create the native operator that refreshes several layers in parallel.

    Args:
        parts: the layers' arguments, at least one, all of the same operator.
        reporter: number of the reporter that is told of layers whose inverses can't be computed. These layers
            keep their inverses. Default: 0, which makes them errors of the operator.

    Returns:
        The operator. Its inputs are ``due``, the damping (scalar float32), then the arrays of each part in
        turn. ``due`` is int32, of shape () for all layers or (layers,) for one per layer; 0 skips a layer.

    Raises:
        ValueError: if the parts have different operators, or if there is no part.
    """
    names = {part.operator for part in parts}
    if len(names) != 1:
        raise ValueError(f"fused_refresh: parts must all have one operator, got {sorted(names)!r}")
    attributes: dict[str, Any] = {
        key: [part.attributes[key] for part in parts] for key in parts[0].attributes
    }
    layers = "\n".join(part.layer for part in parts)
    return native_operator(parts[0].operator, layers=layers, reporter=reporter, **attributes)


class LayerRefresh(nn.Cell):
    r"""Base of the operators that refresh one layer's inverses.

    A subclass defines :meth:`fallback` and names its arrays. Its kernel accepts the arrays of any number of
    layers.

    Args:
        operator: the kernel's name in :func:`ms_kfac.kernels.status`.
        layer: the layer's name.
        arrays: statistics and inverses, in the order of ``ARRAYS``. Trailing arrays may be omitted.
        **attributes: the kernel's per-layer attributes.

    Attributes:
        ARRAYS: the names of the arrays in ``kernels/interface/refresh_layouts.h``, which defines the kernels'
            order.
        spec: this layer's arguments to a call for several layers; None if the fallback runs.

    Inputs:
        - **damping** (Tensor) - :math:`\lambda`, scalar float32, positive.

    Outputs:
        bool, True.
    """

    ARRAYS: tuple[str, ...] = ()

    def __init__(self, operator: str, layer: str, arrays: Sequence[Parameter], **attributes: Number) -> None:
        super().__init__(auto_prefix=False)
        self.native = is_native(operator)
        self.spec: RefreshSpec | None = None
        self.kernel: Any = None
        if self.native:
            named = dict(zip(self.ARRAYS, arrays))
            order = present_library().refresh_layout(REGISTRY[operator])
            arrays = tuple(named[name] for name in order if name in named)
            self.spec = RefreshSpec(operator, layer, arrays, attributes)
            self.kernel = fused_refresh((self.spec,))
        self.arrays = ParameterTuple(arrays)
        self.due = Tensor(1, ms.int32)

    def construct(self, damping: Tensor) -> bool:
        if self.native:
            self.kernel(self.due, damping, *self.arrays)
        else:
            self.fallback(damping)
        return True

    def fallback(self, damping: Tensor) -> bool:
        """Fallback, composed of MindSpore operators."""
        raise TypeError(f"{type(self).__name__}: must define fallback(damping)")
