"""Saves and loads the Parameters of a training cell."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import mindspore as ms
from mindspore import Parameter
from mindspore.nn import Cell

from model_zoo.common.errors import CheckpointError

# The last part of a Parameter's name. The learning rate of every step is computed from the recipe, whose
# epochs may have changed.
_FOLLOWS_FROM_THE_RECIPE = "learning_rate"


def read_parameters(path: Path) -> dict[str, Parameter]:
    """Reads a MindSpore checkpoint.

    Args:
        path: the file.

    Returns:
        Its Parameters by name.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist.")
    try:
        parameters: dict[str, Parameter] = ms.load_checkpoint(str(path))
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint {path} can't be read: it is damaged or not a MindSpore checkpoint."
        ) from error
    return parameters


def load_network(network: Cell, path: Path) -> None:
    """Loads a network from a checkpoint that must hold all of its parameters.

    Args:
        network: the network to load into.
        path: the file.

    Raises:
        CheckpointError: the file is missing or damaged, or a parameter is missing or has another shape.
    """
    saved = read_parameters(path)
    for name, parameter in network.parameters_and_names():
        if name not in saved:
            raise CheckpointError(f"checkpoint {path} lacks parameter {name} of the recipe's network.")
        if saved[name].shape != parameter.shape:
            raise CheckpointError(
                f"checkpoint {path} holds {name} with shape {saved[name].shape}; the recipe's network has "
                f"shape {parameter.shape}."
            )
    ms.load_param_into_net(network, saved)


def _state_of(cell: Cell) -> dict[str, Parameter]:
    parameters = list(cell.get_parameters())
    twice = [name for name, count in Counter(p.name for p in parameters).items() if count > 1]
    if twice:
        raise ValueError(f"Parameter names must be unique, got duplicates: {', '.join(twice)}")
    return {p.name: p for p in parameters if not p.name.split(".")[-1].startswith(_FOLLOWS_FROM_THE_RECIPE)}


def save_state(cell: Cell, path: Path) -> None:
    """Saves every Parameter of a training cell.

    Args:
        cell: the cell with network, loss and optimizer.
        path: the file to write.

    Raises:
        ValueError: two Parameters share a name.
    """
    ms.save_checkpoint([{"name": name, "data": p} for name, p in _state_of(cell).items()], str(path))


def load_state(cell: Cell, path: Path) -> None:
    """Loads the state saved by `save_state` into a new training cell.

    Args:
        cell: the cell with network, loss and optimizer; it has taken no step.
        path: the file.

    Raises:
        CheckpointError: the file is missing or damaged, or does not hold exactly the cell's Parameters.
        ValueError: two Parameters share a name.
    """
    saved, own = read_parameters(path), _state_of(cell)
    for name, parameter in own.items():
        if name not in saved:
            raise CheckpointError(f"checkpoint {path} lacks state {name}, which this recipe needs.")
        if (saved[name].shape, saved[name].dtype) != (parameter.shape, parameter.dtype):
            raise CheckpointError(
                f"checkpoint {path} holds {name} as {saved[name].dtype} of shape {saved[name].shape}; this "
                f"recipe has {parameter.dtype} of shape {parameter.shape}."
            )
    unknown = sorted(set(saved) - set(own))
    if unknown:
        raise CheckpointError(f"checkpoint {path} holds {unknown[0]}, which this recipe does not have.")
    for name, parameter in own.items():
        parameter.set_data(saved[name])
