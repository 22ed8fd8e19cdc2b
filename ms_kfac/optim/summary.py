"""The text that says what an optimizer preconditions, what it does not, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import groupby

from ms_kfac.capture.discover import OUTSIDE, FirstOrderCell
from ms_kfac.capture.layer import Layer
from ms_kfac.optim.block_choice import NORMALIZATION_STAYS

# Networks of more layers have one row for neighbours that differ in their names alone.
_FOLDED_FROM = 17
# Share of weights without a curvature that needs no warning.
_UNSAID_SHARE = 0.05
# Parameters that stay first-order for one reason, of which so many are named.
_NAMED = 4


@dataclass(frozen=True)
class LayerRow:
    """What the table says of a preconditioned layer.

    Attributes:
        name: the layer's name.
        kind: its kind.
        block: the kind of its curvature block.
        dimensions: the dimensions of its factors.
        bytes: memory of its statistics and inverses.
        operators: which form of its operators runs.
        verified: what the last commit found.
        weights: number of weights that the block preconditions.
    """

    name: str
    kind: str
    block: str
    dimensions: str
    bytes: int
    operators: str
    verified: str
    weights: int


_HEADER = ("layer", "kind", "block", "dimensions", "KiB", "operators", "verified")


def operator_forms(**native: bool) -> str:
    """Which form of a layer's operators runs.

    Args:
        **native: whether each of them, by what it does, is native.

    Returns:
        "native", "fallback", or "native" with what is fallback.
    """
    fallback = [name for name, flag in native.items() if not flag]
    if not fallback:
        return "native"
    return "fallback" if len(fallback) == len(native) else f"native, fallback {' and '.join(fallback)}"


def summary_text(
    title: str,
    options: Mapping[str, object],
    layers: Sequence[LayerRow],
    first_order: Sequence[FirstOrderCell],
    rule: str,
    *,
    every_layer: bool,
) -> str:
    """Lay out the summary.

    Args:
        title: the first line.
        options: the options in force, by name.
        layers: the preconditioned layers, in the network's order.
        first_order: the cells that stay first-order, and the trained parameters outside the network.
        rule: what updates them.
        every_layer: one row per layer also in large networks, and all names of first-order parameters.

    Returns:
        The title; the options; the share of the weights that is preconditioned; a table of the layers; then
        the parameters that stay first-order, grouped by reason.
    """
    preconditioned = sum(row.weights for row in layers)
    weights = preconditioned + _weights_of(first_order)
    share = 100.0 * preconditioned / weights if weights else 0.0
    memory = sum(row.bytes for row in layers) / 2**20
    # The intervals are long: each has a line of its own.
    lines = [title.replace(", factors ", ",\n  factors ").replace(", inverses ", ",\n  inverses ")]
    lines.append("  " + ", ".join(f"{name}={_shown(value)}" for name, value in options.items()))
    lines.append(
        f"{_counted(len(layers), 'layer')} preconditioned: {share:.1f} % of {weights:,} weights; "
        f"{memory:.1f} MiB of statistics and inverses"
    )
    if layers:
        lines += _table(layers, folds=not every_layer and len(layers) >= _FOLDED_FROM)
    if first_order:
        left = weights - preconditioned
        outside = sum(cell.kind == OUTSIDE for cell in first_order)
        counted = [_counted(len(first_order) - outside, "cell")] if len(first_order) > outside else []
        counted += [_counted(outside, "parameter") + " outside the network"] if outside else []
        lines.append(f"{' and '.join(counted)} first-order: {left:,} weights, updated by {rule}")
        lines += [_reason_line(cells, every_layer) for cells in _by_reason(first_order)]
    return "\n".join(lines)


def first_order_warning(
    layers: Sequence[Layer], first_order: Sequence[FirstOrderCell], left: Sequence[str], rule: str
) -> str:
    """Say that many weights stay first-order without a request, and why.

    Args:
        layers: the preconditioned layers.
        first_order: the cells that stay first-order.
        left: regular expressions; parameters whose names match are left first-order on request.
        rule: what updates them.

    Returns:
        A text; empty if the share is not above 5 %. Normalization layers, and what an option leaves
        first-order or gives from outside the network, do not count.
    """
    # A tied Parameter is in several cells.
    told = {id(p) for cell in first_order if cell.requested for p in cell.parameters}
    cells = []
    for cell in first_order:
        if cell.requested or cell.kind == OUTSIDE or cell.reason == NORMALIZATION_STAYS:
            continue
        own = tuple(p for p in cell.parameters if id(p) not in told and not _matches(left, p.name))
        told |= {id(p) for p in own}
        if own:
            cells.append(replace(cell, parameters=own))
    preconditioned = sum(int(parameter.size) for layer in layers for parameter in layer.parameters())
    weights = preconditioned + _weights_of(first_order)
    if _weights_of(cells) <= _UNSAID_SHARE * weights:
        return ""
    groups = sorted(_by_reason(cells), key=_weights_of, reverse=True)
    reasons = [
        f"{_share(group, weights)} in {_named_cells(group)}: {group[0].reason}" for group in groups[:4]
    ]
    return (
        f"{_share(cells, weights)} of the weights have no curvature and are updated as by {rule} "
        f"({'; '.join(reasons)}). blocks={{'other': ms_kfac.curvature.DiagonalBlock}} gives them one per "
        "weight; skip= silences this warning"
    )


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _share(cells: Iterable[FirstOrderCell], weights: int) -> str:
    return f"{100.0 * _weights_of(cells) / weights:.1f} %"


def _named_cells(cells: Sequence[FirstOrderCell]) -> str:
    more = f" and {len(cells) - _NAMED} more" if len(cells) > _NAMED else ""
    return ", ".join(cell.name for cell in cells[:_NAMED]) + more


def _table(layers: Sequence[LayerRow], *, folds: bool) -> list[str]:
    rows = [_HEADER]
    for _, group in groupby(layers, key=lambda row: astuple(row)[1:] if folds else row):
        alike = list(group)
        name = alike[0].name
        if len(alike) > 1:
            name = f"{alike[0].name} ... {alike[-1].name} ({len(alike)})"
        row = alike[0]
        kibibytes = f"{row.bytes / 1024:.0f}"
        rows.append((name, row.kind, row.block, row.dimensions, kibibytes, row.operators, row.verified))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def _by_reason(cells: Iterable[FirstOrderCell]) -> list[list[FirstOrderCell]]:
    reasons: dict[str, list[FirstOrderCell]] = {}
    for cell in cells:
        reasons.setdefault(cell.reason, []).append(cell)
    return list(reasons.values())


def _reason_line(cells: Sequence[FirstOrderCell], every_name: bool) -> str:
    names = [f"{cell.name}.{p.name.split('.')[-1]}".lstrip(".") for cell in cells for p in cell.parameters]
    shown = names if every_name or len(names) <= _NAMED + 1 else names[:_NAMED]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    kinds = Counter(cell.kind for cell in cells)
    counted = ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in kinds.items())
    return f"  {', '.join(shown)}{more} ({counted}; {_weights_of(cells):,} weights): {cells[0].reason}"


def _shown(value: object) -> str:
    if isinstance(value, (int, float)):
        return f"{value:g}"
    return repr(value) if value is None or isinstance(value, str) else type(value).__name__


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _weights_of(cells: Iterable[FirstOrderCell]) -> int:
    # A tied Parameter is in several cells.
    sizes = {id(parameter): int(parameter.size) for cell in cells for parameter in cell.parameters}
    return sum(sizes.values())
