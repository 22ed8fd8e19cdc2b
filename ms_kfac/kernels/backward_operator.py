"""Native kernels that taps call in backward passes: they accept dynamic batches, and vmap leaves them out."""

from __future__ import annotations

from typing import Any

from ms_kfac.kernels.operator import native_operator, present_library
from ms_kfac.kernels.registry import REGISTRY
from ms_kfac.kernels.vmap_rules import leave_out_of_vmap


def backward_operator(name: str, **attributes: Any) -> Any:
    """Create the operator for a kernel that works in place in a backward pass.

    A batch axis that is dynamic (``Cell.set_inputs`` with None) is resolved in each step. This needs a shape
    function in the kernel's library, which only the CPU's has.

    Under ``mindspore.vmap`` the operator does nothing: per-sample gradients are no training step, and a
    kernel can't stage the batches of many samples at once.

    Args:
        name: the operator's name in :func:`ms_kfac.kernels.status`.
        **attributes: attributes that the kernel reads at creation.

    Returns:
        The operator. Its first inputs are x and dout.
    """
    if present_library().exports(f"{REGISTRY[name]}InferShape"):
        operator = native_operator(name, **attributes)
        # The name is what MindSpore's shape inference calls the operator in its messages.
        operator.add_prim_attr("reg_op_name", name)
        operator.add_prim_attr("cpp_infer_shape", True)
    else:
        operator = native_operator(name, shapes=shape_of_static_inputs, **attributes)
    return leave_out_of_vmap(operator)


def shape_of_static_inputs(x: Any, dout: Any, *others: Any) -> tuple[int]:
    """Infer the shape of the output, if x and dout have no dynamic axis.

    Args:
        x: shape of the layer's input; an axis that is unknown at compilation is negative.
        dout: shape of the output gradient.
        *others: shapes of the other inputs.

    Returns:
        The output shape.

    Raises:
        ValueError: if an axis is unknown.
    """
    if any(size < 0 for size in (*x, *dout)):
        raise ValueError(
            "set_inputs: the CUDA kernels need shapes without None. Leave set_inputs out, so that MindSpore "
            "compiles a step for each shape, or set MS_KFAC_NATIVE=0 before ms_kfac is imported"
        )
    return (1,)
