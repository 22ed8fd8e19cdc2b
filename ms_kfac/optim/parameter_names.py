"""What the names of an optimizer's Parameters start with, so that optimizers of one graph don't share names.

MindSpore refuses a graph in which two Parameters have the same name. The weights of a graph have different
names already, so the prefix follows from them. It depends on nothing else in the process: a checkpoint finds
its Parameters again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mindspore import Parameter, nn


def name_prefix(method: str, network: nn.Cell, params: Sequence[Any] | None) -> str:
    """The default of the option ``name``.

    Args:
        method: the method's name.
        network: the network.
        params: Parameters or parameter groups, or None for all of the network.

    Returns:
        The method's name. After it comes the path of the trained part, where there is one: that of the
        network within a larger one ("kfac.generator"), or of the cell that holds all of ``params``
        ("kfac.actor"). If ``params`` are of some cells next to one another, their names follow
        ("kfac.trunk_actor"), or the names of the others if these are fewer ("kfac.without_critic"). It does
        not depend on which other parameters are frozen.
    """
    path = _path_of(network) if params is None else _path_of_part(network, _flat(params))
    return f"{method}.{path}" if path else method


def prefix_names(parameters: Iterable[Parameter], prefix: str) -> None:
    """Let the names of Parameters start with a prefix.

    Args:
        parameters: what to rename.
        prefix: what comes before each name and a dot.
    """
    for parameter in parameters:
        parameter.name = f"{prefix}.{parameter.name}"


@contextmanager
def apart_from_attributes(params: Sequence[Any]) -> Iterator[None]:
    """Let the names of weights begin with "weights." for a while.

    A Cell registers its Parameters as attributes of their names. Without this, a network's Parameter
    "damping" collides with the optimizer's attribute.

    Args:
        params: Parameters or parameter groups.

    Yields:
        None.
    """
    weights = {id(parameter): parameter for parameter in _flat(params)}.values()
    names = [parameter.name for parameter in weights]
    prefix_names(weights, "weights")
    try:
        yield
    finally:
        for parameter, name in zip(weights, names):
            parameter.name = name


def _path_of(network: nn.Cell) -> str:
    named = [
        (name, parameter) for name, parameter in network.parameters_and_names() if parameter.requires_grad
    ]
    paths = {p.name[: -len(name) - 1] if p.name.endswith(f".{name}") else "" for name, p in named}
    # A shared submodule has the path of another parent.
    return paths.pop() if len(paths) == 1 else _shared_path([parameter for _, parameter in named])


def _flat(params: Sequence[Any]) -> list[Parameter]:
    # MindSpore checks the groups later: what is no Parameter is passed over here.
    groups = [group.get("params") or () if isinstance(group, dict) else (group,) for group in params]
    return [item for group in groups for item in group if isinstance(item, Parameter)]


def _path_of_part(network: nn.Cell, parameters: Sequence[Parameter]) -> str:
    path = _shared_path(parameters)
    depth = len(path.split(".")) if path else 0

    beginning = f"{path}." if path else ""
    of_path = [p for p in network.get_parameters() if p.name.startswith(beginning)]
    given = {parameter.name.split(".")[depth] for parameter in parameters}
    every = dict.fromkeys(parameter.name.split(".")[depth] for parameter in of_path)
    own, others = ([name for name in every if (name in given) is flag] for flag in (True, False))
    if not others or len(own) < 2:
        return path
    part = "_".join(own if len(own) <= len(others) else ["without", *others])
    return f"{path}.{part}" if path else part


def _shared_path(parameters: Sequence[Parameter]) -> str:
    paths = [parameter.name.split(".")[:-1] for parameter in parameters]
    shared: list[str] = []
    for names in zip(*paths):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)
