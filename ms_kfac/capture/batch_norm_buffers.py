"""Moving moments of normalisation layers (batch-norm buffers)."""

from __future__ import annotations

from mindspore import Parameter, nn

# Names of the buffers in the normalisation layers of mindspore.nn and mindspore.mint.nn.
_MOVING = ("moving_mean", "moving_variance", "running_mean", "running_var", "num_batches_tracked")


def batch_norm_buffers(network: nn.Cell) -> list[Parameter]:
    """Collect the Parameters that a forward pass in training mode updates.

    Args:
        network: any network.

    Returns:
        The buffers of its normalisation layers, without duplicates.
    """
    found = {}
    for _, cell in network.cells_and_names():
        for name in _MOVING:
            value = getattr(cell, name, None)
            if isinstance(value, Parameter):
                found[id(value)] = value
    return list(found.values())
