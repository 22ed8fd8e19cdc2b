"""The moments that normalisation layers keep for evaluation."""

from __future__ import annotations

from mindspore import Parameter, nn

# What normalisation layers, nn's and mint's, call the moments that a forward pass in training mode moves.
_MOVING = ("moving_mean", "moving_variance", "running_mean", "running_var", "num_batches_tracked")


def moving_statistics(network: nn.Cell) -> list[Parameter]:
    """Parameters that a forward pass in training mode changes by itself.

    Args:
        network: any network.

    Returns:
        The moving moments of its normalisation layers, each once.
    """
    found = {}
    for _, cell in network.cells_and_names():
        for name in _MOVING:
            value = getattr(cell, name, None)
            if isinstance(value, Parameter):
                found[id(value)] = value
    return list(found.values())
