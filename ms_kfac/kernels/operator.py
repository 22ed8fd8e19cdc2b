"""A native kernel as an operator that graph mode and PyNative mode call."""

from __future__ import annotations

from typing import Any, Callable

import mindspore as ms
from mindspore import ops

from ms_kfac.kernels.library import DEVICES, library
from ms_kfac.kernels.native_library import NativeLibrary
from ms_kfac.kernels.registry import REGISTRY


def is_native(operator: str) -> bool:
    """Whether an operator of ``ms_kfac.ops`` runs its native form.

    Args:
        operator: its name in :func:`ms_kfac.kernels.status`.

    Returns:
        True where the library of the present device target is loaded and has a kernel of it.
    """
    return fallback_reason(operator, ms.get_context("device_target")) == ""


def fallback_reason(operator: str, device: str) -> str:
    """Why an operator runs its fallback on a device.

    Args:
        operator: its name in :func:`ms_kfac.kernels.status`.
        device: a device target of MindSpore.

    Returns:
        The reason; empty where the native form runs.
    """
    function = REGISTRY[operator]
    if function is None:
        return "no native kernel is written for it"
    if device not in DEVICES:
        return f"kernels are for {' and '.join(DEVICES)}"
    own = library(device)
    if own.reason:
        return own.reason
    # The CPU's library is built whole or not at all: a function that it lacks must not pass in silence.
    if device == "GPU" and not own.exports(function):
        return "not in the GPU's library"
    return ""


def present_library() -> NativeLibrary:
    """The library of the present device target.

    Returns:
        The library, or one that says why there is none.
    """
    return library(ms.get_context("device_target"))


def native_operator(
    name: str, *, shapes: Callable[..., Any] | None = None, dtypes: Any = None, **attributes: Any
) -> Any:
    """A kernel of the library as an operator.

    Args:
        name: the operator's name in :func:`ms_kfac.kernels.status`.
        shapes: from the inputs' shapes to the outputs' shapes, one or a tuple of them. None: the kernel works
            in place and has one output (1,) of float32, which stands for its having run.
        dtypes: the outputs' types, in the structure of ``shapes``. None: float32 for one output.
        **attributes: what the kernel reads when it is created: bools, ints, floats, strings, lists of ints or
            of floats.

    Returns:
        The operator. It keeps its place among other operators that write memory, because it may write its
        inputs. What it writes must be a Parameter that is an input of its own: in a tuple a Parameter is a
        mere value to MindSpore's compiler, which does not see the write.
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
