"""Layers that the networks of the zoo share."""

from __future__ import annotations

import mindspore.nn as nn
from mindspore.common.initializer import HeNormal, XavierUniform, Zero

NONLINEARITIES = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def nonlinearity_of(name: str) -> nn.Cell:
    """The activation of that name.

    Args:
        name: "relu", "tanh" or "sigmoid".

    Returns:
        A new cell.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in NONLINEARITIES:
        raise ValueError(f"nonlinearity must be one of {', '.join(NONLINEARITIES)}, but is {name!r}")
    return NONLINEARITIES[name]()


def dense(inputs: int, outputs: int, nonlinearity: str) -> nn.Dense:
    """A dense layer with weights for the activation after it: He for ReLU, else Glorot; biases are zero."""
    weights = HeNormal(nonlinearity="relu") if nonlinearity == "relu" else XavierUniform()
    return nn.Dense(inputs, outputs, weight_init=weights, bias_init=Zero())


def convolution(inputs: int, outputs: int, kernel: int, stride: int, *, bias: bool = False) -> nn.Conv2d:
    """A convolution that pads by half its kernel, with He's initial weights.

    He, Zhang, Ren and Sun, "Delving deep into rectifiers", 2015, section 2.2: a normal distribution with
    the variance 2 / (kernel^2 outputs), equation 14, which keeps the size of gradients.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: side of the kernel.
        stride: of both axes.
        bias: whether it has a bias, which starts at zero.

    Returns:
        The layer.
    """
    return nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride,
        pad_mode="pad",
        padding=kernel // 2,
        has_bias=bias,
        weight_init=HeNormal(mode="fan_out", nonlinearity="relu"),
        bias_init=Zero(),
    )
