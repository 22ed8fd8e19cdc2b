"""Layers that the dense networks of the zoo share."""

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
