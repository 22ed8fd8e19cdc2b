"""The text table of what an optimizer preconditions, what it does not, and why."""

from __future__ import annotations

from collections.abc import Sequence

from ms_kfac.capture.discover import FirstOrderCell
from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import CurvatureBlock

_HEADER = ("layer", "kind", "block", "dimensions", "KiB", "operators", "verified")


def operator_forms(**native: bool) -> str:
    """Which form of a layer's operators runs.

    Args:
        **native: whether each of them, by what it does, is native.

    Returns:
        "native", "composed", or "native" with what is composed.
    """
    composed = [name for name, flag in native.items() if not flag]
    if not composed:
        return "native"
    return "composed" if len(composed) == len(native) else f"native, composed {' and '.join(composed)}"


def summary_table(
    title: str,
    layers: Sequence[Layer],
    blocks: Sequence[CurvatureBlock],
    forms: Sequence[str],
    first_order: Sequence[FirstOrderCell],
    verified: Sequence[str],
) -> str:
    """Lay out one row a cell that owns trained parameters.

    Args:
        title: the first line.
        layers: the preconditioned layers.
        blocks: their curvature blocks, in the same order.
        forms: which form of its operators runs, for each layer.
        first_order: the cells that stay first-order.
        verified: what the last commit found of each layer.

    Returns:
        A table with a column each for the layer, its kind, its block, the dimensions of its factors, the
        memory of statistics and inverses, which form of the operators runs, and whether the last commit
        verified the layer; then the first-order cells with the reason.
    """
    rows = [_HEADER]
    for layer, block, form, state in zip(layers, blocks, forms, verified):
        kind = layer.kind + (" (tapped at its primitive)" if layer.tapped_primitive else "")
        memory = f"{block.bytes() / 1024:.0f}"
        rows.append((layer.name, kind, block.kind, block.dimensions(), memory, form, state))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [title]
    lines += ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(2, "  ".join("-" * width for width in widths))
    total = sum(block.bytes() for block in blocks)
    lines.append(f"{len(blocks)} layers preconditioned, {total / 2**20:.1f} MiB of statistics and inverses")
    if first_order:
        width = max(len(cell.name) for cell in first_order)
        lines.append(f"{len(first_order)} cells first-order:")
        lines += [f"  {cell.name.ljust(width)}  {cell.kind}: {cell.reason}" for cell in first_order]
    return "\n".join(lines)
