"""Discovery of the layers that can be preconditioned, with the reasons why others can't."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Callable

import mindspore as ms
from mindspore import Parameter, nn

from ms_kfac import capture
from ms_kfac.capture.attention import time_first_cells
from ms_kfac.capture.layer import Layer
from ms_kfac.capture.layer_kinds import Description, describe_layer, layers_of
from ms_kfac.capture.lone_parameter import lone_parameter
from ms_kfac.ops.step.parameter_rows import LayerParameter, parameter_of

# A module of this package registers its layer kinds when it is imported.
for _module in pkgutil.iter_modules(capture.__path__, f"{capture.__name__}."):
    importlib.import_module(_module.name)

# Types of weights. Statistics and inverses are float32 for all of them.
_TYPES = (ms.float32, ms.float16, ms.bfloat16)

# The kind of a trained Parameter that no cell of the network owns.
OUTSIDE = "Parameter"

# The reason, and whether an option of the user requested it.
Objection = tuple[str, bool]


@dataclass(frozen=True)
class FirstOrderCell:
    """A cell whose parameters get first-order updates.

    Attributes:
        name: the cell's name in the network.
        kind: name of the cell's class.
        parameters: the cell's own parameters that the optimizer trains, or rows of them.
        reason: why the cell is not preconditioned.
        requested: whether ``skip`` or ``blocks`` requested this, so that its Parameters get no other block.
    """

    name: str
    kind: str
    parameters: tuple[LayerParameter, ...]
    reason: str
    requested: bool = False


def discover(
    network: nn.Cell,
    trained: Iterable[Parameter],
    skip: Sequence[str],
    *,
    objection: Callable[[Layer], Objection | None] | None = None,
) -> tuple[list[Layer], list[FirstOrderCell]]:
    """Divide the cells that own trained parameters into layers to precondition and first-order cells.

    Args:
        network: the network, tapped or not.
        trained: the parameters that the optimizer updates.
        skip: regular expressions; a layer stays first-order if one of them matches its name (``re.search``).
        objection: function that returns why a layer stays first-order, or None to precondition it. Default:
            None, for no objections.

    Returns:
        The layers to precondition, in the network's order, and the cells that stay first-order, with the
        reasons.
    """
    trained_ids = {id(parameter) for parameter in trained}
    owners: dict[int, list[tuple[str, nn.Cell]]] = {}
    cells = [(name or type(cell).__name__, cell) for name, cell in network.cells_and_names()]
    for name, cell in cells:
        for parameter in _own_parameters(cell):
            owners.setdefault(id(parameter), []).append((name, cell))
    time_first = time_first_cells(network)

    layers: list[Layer] = []
    first_order: list[FirstOrderCell] = []
    # Cells inside a layer's cell whose Parameters the layer has, such as out_proj of an attention.
    inside: set[int] = set()
    for name, cell in cells:
        if id(cell) in inside:
            continue
        kind = type(cell).__name__
        described = _described(name, cell, time_first)
        found = layers_of(described)
        known = {id(parameter_of(p)): parameter_of(p) for layer in found for p in layer.parameters()}
        inside |= {
            id(inner) for inner in _cells_of(cell) if all(id(p) in known for p in _own_parameters(inner))
        }
        everything = {id(parameter): parameter for parameter in _own_parameters(cell)} | known
        own = tuple(parameter for key, parameter in everything.items() if key in trained_ids)
        if not own:
            continue
        if isinstance(described, str):
            requested = _skipped(name, skip) is not None
            first_order.append(FirstOrderCell(name, kind, own, described, requested=requested))
            continue
        staying: list[tuple[Layer, str, bool]] = []
        for layer in found:
            reason, requested = _skipped(name, skip) or _skipped(layer.name, skip), True
            if reason is None:
                reason, requested = _untrainable(layer, trained_ids, owners), False
            if reason is None and objection is not None:
                reason, requested = objection(layer) or (None, False)
            if reason is None:
                layers.append(layer)
            else:
                staying.append((layer, reason, requested))
        if len(staying) == len(found):
            _, reason, _ = staying[0]
            requested = any(flag for *_, flag in staying)
            first_order.append(FirstOrderCell(name, kind, own, reason, requested))
            continue
        for layer, reason, requested in staying:
            left = tuple(p for p in layer.parameters() if id(parameter_of(p)) in trained_ids)
            if left:
                first_order.append(FirstOrderCell(layer.name, kind, left, reason, requested))
        extra = tuple(parameter for parameter in own if id(parameter) not in known)
        if extra:
            reason = "a parameter in addition to the layer's weight and bias"
            if found[0].input_first:
                reason = "the bias of a transposed convolution is in no patch"
            first_order.append(FirstOrderCell(name, kind, extra, reason))
    return layers, first_order


def _described(name: str, cell: nn.Cell, time_first: set[int]) -> Description:
    described = describe_layer(name, cell)
    if id(cell) not in time_first or isinstance(described, str):
        return described
    return tuple(replace(layer, sample_axis=1) for layer in layers_of(described))


def _cells_of(cell: nn.Cell) -> list[nn.Cell]:
    return [inner for _, inner in cell.cells_and_names()]


def outside_parameters(network: nn.Cell, trained: Iterable[Parameter]) -> list[FirstOrderCell]:
    """Find trained parameters that no cell of the network owns, such as those of a loss.

    Args:
        network: the network.
        trained: the parameters that the optimizer updates.

    Returns:
        One entry per parameter, of the kind :data:`OUTSIDE`. Its name is that of the parameter, without the
        last part.
    """
    inside = {id(p) for _, cell in network.cells_and_names() for p in _own_parameters(cell)}
    reason = "given in params=, but not in the network"
    return [
        FirstOrderCell(parameter.name.rpartition(".")[0], OUTSIDE, (parameter,), reason)
        for parameter in trained
        if id(parameter) not in inside
    ]


def lone_parameters(
    first_order: Sequence[FirstOrderCell], has_block: Callable[[Layer], bool]
) -> tuple[list[Layer], list[FirstOrderCell]]:
    """Find the parameters outside the preconditioned layers that can have a block.

    Args:
        first_order: the cells that :func:`discover` left first-order.
        has_block: whether the options give a Parameter, as a layer of the kind "other", a block.

    Returns:
        A layer of the kind "other" for each parameter with a block, and the cells that stay first-order.
    """
    # A tied Parameter belongs to several cells.
    requested = {id(parameter) for cell in first_order if cell.requested for parameter in cell.parameters}
    layers: dict[int, Layer] = {}
    staying: list[FirstOrderCell] = []
    for cell in first_order:
        free = [p for p in cell.parameters if isinstance(p, Parameter) and id(p) not in requested]
        free = [parameter for parameter in free if has_block(lone_parameter(parameter))]
        layers.update({id(parameter): lone_parameter(parameter) for parameter in free})
        rest = tuple(p for p in cell.parameters if all(p is not one for one in free))
        if rest:
            staying.append(replace(cell, parameters=rest))
    return list(layers.values()), staying


def _own_parameters(cell: nn.Cell) -> list[Parameter]:
    return [parameter for _, parameter in cell.parameters_and_names(expand=False)]


def kinds_of(network: nn.Cell) -> set[str]:
    """Collect the kinds of a network's layers.

    Args:
        network: the network, tapped or not.

    Returns:
        The kinds, as the registered functions name them.
    """
    described = [describe_layer(name, cell) for name, cell in network.cells_and_names()]
    return {layer.kind for found in described for layer in layers_of(found)}


def names_of_cells(network: nn.Cell) -> list[str]:
    """List the names of a network's cells and layers.

    Args:
        network: the network.

    Returns:
        The names. The network itself has the name of its class.
    """
    cells = [(name or type(cell).__name__, cell) for name, cell in network.cells_and_names()]
    layers = [layer.name for name, cell in cells for layer in layers_of(describe_layer(name, cell))]
    return list(dict.fromkeys([*(name for name, _ in cells), *layers]))


def unmatched_patterns(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Find the patterns that match no name.

    Args:
        names: the names.
        patterns: regular expressions.

    Returns:
        The patterns without a match (``re.search``).
    """
    known = list(names)
    return [pattern for pattern in patterns if not any(re.search(pattern, name) for name in known)]


def _skipped(name: str, skip: Sequence[str]) -> str | None:
    return next((f"skip pattern {pattern!r}" for pattern in skip if re.search(pattern, name)), None)


def _untrainable(layer: Layer, trained: set[int], owners: dict[int, list[tuple[str, nn.Cell]]]) -> str | None:
    inside = {id(cell) for cell in _cells_of(layer.cell)}
    for weight in layer.parameters():
        parameter = parameter_of(weight)
        if parameter.dtype not in _TYPES:
            return f"{parameter.name} is {parameter.dtype}, not Float32, Float16 or BFloat16"
        if id(parameter) not in trained:
            return f"{parameter.name} is frozen or not given to the optimizer"
        others = [name for name, cell in owners[id(parameter)] if id(cell) not in inside]
        if others:
            return f"{parameter.name} is tied to {', '.join(others)}"
    return None
