"""Layers shared by the zoo's networks."""

from __future__ import annotations

import mindspore.nn as nn
from mindspore.common.initializer import HeNormal, XavierUniform, Zero

NONLINEARITIES = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def create_activation(name: str) -> nn.Cell:
    """Creates the activation with the given name.

    Args:
        name: "relu", "tanh" or "sigmoid".

    Returns:
        A new cell.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in NONLINEARITIES:
        raise ValueError(f"nonlinearity: must be one of {', '.join(NONLINEARITIES)}, got {name!r}")
    return NONLINEARITIES[name]()


def dense(inputs: int, outputs: int, nonlinearity: str) -> nn.Dense:
    """A dense layer with zero biases and He initialization for ReLU, otherwise Glorot initialization."""
    weights = HeNormal(nonlinearity="relu") if nonlinearity == "relu" else XavierUniform()
    return nn.Dense(inputs, outputs, weight_init=weights, bias_init=Zero())


def convolution(inputs: int, outputs: int, kernel: int, stride: int, *, bias: bool = False) -> nn.Conv2d:
    """A convolution with padding of half the kernel size and He initialization.

    He, Zhang, Ren and Sun, "Delving deep into rectifiers", 2015, section 2.2: a normal distribution with
    the variance 2 / (kernel^2 outputs), equation 14, which preserves the magnitude of gradients.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: kernel size.
        stride: stride of both axes.
        bias: whether the layer has a bias, initialized to zero.

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
