"""Which layers of a network can be preconditioned, and why the others can't."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mindspore as ms
from mindspore import Parameter, nn

from ms_kfac import capture
from ms_kfac.capture.layer import Layer
from ms_kfac.capture.layer_kinds import describe_layer
from ms_kfac.capture.normalization import KIND as NORMALIZATION

# A kind of layer registers itself as its module is imported.
for _module in pkgutil.iter_modules(capture.__path__, f"{capture.__name__}."):
    importlib.import_module(_module.name)


@dataclass(frozen=True)
class FirstOrderCell:
    """A cell whose parameters are trained first-order.

    Attributes:
        name: the cell's name in the network.
        kind: its class.
        parameters: its own parameters that the optimizer trains.
        reason: why it is not preconditioned.
    """

    name: str
    kind: str
    parameters: tuple[Parameter, ...]
    reason: str


def discover(
    network: nn.Cell,
    trained: Iterable[Parameter],
    skip: Sequence[str],
    *,
    normalization_blocks: bool = False,
) -> tuple[list[Layer], list[FirstOrderCell]]:
    """Sort the cells of a network that own trained parameters.

    Args:
        network: the network, tapped or not.
        trained: the parameters that the optimizer updates.
        skip: regular expressions; a layer stays first-order when one of them is found in its name
            (``re.search``).
        normalization_blocks: whether normalisation layers are preconditioned.

    Returns:
        The layers to precondition, in the network's order, and the cells that stay first-order with the
        reason.
    """
    trained_ids = {id(parameter) for parameter in trained}
    owners: dict[int, list[str]] = {}
    cells = [(name or type(cell).__name__, cell) for name, cell in network.cells_and_names()]
    for name, cell in cells:
        for parameter in _own_parameters(cell):
            owners.setdefault(id(parameter), []).append(name)

    layers: list[Layer] = []
    first_order: list[FirstOrderCell] = []
    for name, cell in cells:
        own = tuple(parameter for parameter in _own_parameters(cell) if id(parameter) in trained_ids)
        if not own:
            continue
        described = describe_layer(name, cell)
        if isinstance(described, Layer):
            reason = _objection(described, trained_ids, owners, skip)
            if reason is None and described.kind == NORMALIZATION and not normalization_blocks:
                reason = "normalization='first_order' (normalization='unit_wise' preconditions it)"
            if reason is None:
                layers.append(described)
                extra = tuple(p for p in own if all(p is not known for known in described.parameters()))
                if extra:
                    kind = type(cell).__name__
                    first_order.append(
                        FirstOrderCell(name, kind, extra, "a parameter beside the layer's weight and bias")
                    )
                continue
        else:
            reason = described
        first_order.append(FirstOrderCell(name, type(cell).__name__, own, reason))
    return layers, first_order


def _own_parameters(cell: nn.Cell) -> list[Parameter]:
    return [parameter for _, parameter in cell.parameters_and_names(expand=False)]


def unmatched_patterns(network: nn.Cell, skip: Sequence[str]) -> list[str]:
    """The skip patterns that are found in no cell's name.

    Args:
        network: the network.
        skip: regular expressions, as of :func:`discover`.

    Returns:
        Those that change nothing.
    """
    names = [name for name, _ in network.cells_and_names()]
    return [pattern for pattern in skip if not any(re.search(pattern, name) for name in names)]


def _objection(
    layer: Layer, trained: set[int], owners: dict[int, list[str]], skip: Sequence[str]
) -> str | None:
    for pattern in skip:
        if re.search(pattern, layer.name):
            return f"skip pattern {pattern!r}"
    for parameter in layer.parameters():
        if parameter.dtype != ms.float32:
            return f"{parameter.name} is {parameter.dtype}, not Float32"
        if id(parameter) not in trained:
            return f"{parameter.name} is frozen or not given to the optimizer"
        others = [name for name in owners[id(parameter)] if name != layer.name]
        if others:
            return f"{parameter.name} is tied to {', '.join(others)}"
    return None
