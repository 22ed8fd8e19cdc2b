"""Native kernels as MindSpore operators, for graph mode and PyNative mode."""

from __future__ import annotations

from typing import Any, Callable

import mindspore as ms
from mindspore import ops

from ms_kfac.kernels.library import DEVICES, library
from ms_kfac.kernels.native_library import NativeLibrary
from ms_kfac.kernels.registry import REGISTRY


def is_native(operator: str) -> bool:
    """Whether an operator of ``ms_kfac.ops`` runs its native kernel.

    Args:
        operator: its name in :func:`ms_kfac.kernels.status`.

    Returns:
        True if the library of the current device target is loaded and has a kernel for the operator.
    """
    return fallback_reason(operator, ms.get_context("device_target")) == ""


def fallback_reason(operator: str, device: str) -> str:
    """Get the reason why an operator runs its fallback on a device.

    Args:
        operator: its name in :func:`ms_kfac.kernels.status`.
        device: a MindSpore device target.

    Returns:
        The reason; empty if the native kernel runs.
    """
    if device not in DEVICES:
        return f"kernels are for {' and '.join(DEVICES)}"
    own = library(device)
    if own.reason:
        return own.reason
    # Not checked on CPU: that library is built completely or not at all, so a missing function must fail.
    if device == "GPU" and not own.exports(REGISTRY[operator]):
        return "not in the GPU's library"
    return ""


def present_library() -> NativeLibrary:
    """Get the library of the current device target.

    Returns:
        The library. If it is not usable, its ``reason`` says why.
    """
    return library(ms.get_context("device_target"))


def native_operator(
    name: str, *, shapes: Callable[..., Any] | None = None, dtypes: Any = None, **attributes: Any
) -> Any:
    """Create the operator for a kernel of the current library.

    Args:
        name: the operator's name in :func:`ms_kfac.kernels.status`.
        shapes: function from input shapes to the output shape, or to a tuple of output shapes. None: the
            kernel works in place and has one float32 output of shape (1,), a token that it has run.
        dtypes: output dtypes, in the same structure as the output shapes. None: float32 for one output.
        **attributes: attributes that the kernel reads at creation: bools, ints, floats, strings, lists of
            ints or lists of floats.

    Returns:
        The operator. It has a memory side effect, because it may write its inputs, so MindSpore keeps its
        order among other operators that write memory. Pass each Parameter that it writes as a separate input:
        inside a tuple, MindSpore's compiler treats a Parameter as a value and does not see the write.
    """
    infer_shapes = _done_shape if shapes is None else shapes
    types = ms.float32 if dtypes is None else dtypes
    operator = ops.Custom(
        f"{present_library().path}:{REGISTRY[name]}",
        out_shape=infer_shapes,
        out_dtype=lambda *inputs: types,
        func_type="aot",
    )
    for key, value in attributes.items():
        operator.add_prim_attr(key, value)
    operator.add_prim_attr("side_effect_mem", True)
    return operator


def _done_shape(*inputs: Any) -> tuple[int]:
    return (1,)
