"""Reference covariances by torch: unfold and cuBLAS products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.gpu.resnet50_layers import Layer

# Only the batched form keeps one product per sample; it is skipped if they need more than this.
LARGEST_PRODUCTS = 16 * 2**30
# The float64 reference processes a batch in chunks of this many numbers.
LARGEST_PIECE = 2**28


def unfolded(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """Patches (N, d, T), by torch's cheapest way for this layer."""
    if layer.dense:
        ones = torch.ones_like(x[:, :1])
        return torch.cat((x, ones), 1).unsqueeze(-1)
    if layer.kernel == 1:
        return x[:, :, :: layer.stride, :: layer.stride].reshape(len(x), layer.inputs, -1)
    return functional.unfold(x, layer.kernel, padding=layer.padding, stride=layer.stride)


def forms(
    columns: Callable[[], torch.Tensor], shape: tuple[int, int, int], total: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """Creates functions that add the covariance of columns to a float32 sum.

    Args:
        columns: computes the columns (N, d, T) from the layer's input or output gradient.
        shape: N, d and T.
        total: the sum, (d, d).

    Returns:
        Functions by name. Each computes the columns and adds to ``total``: by one product of all columns, one
        product of all rows, or the sum of one product per sample.
    """
    samples, dimension, locations = shape

    def side_by_side() -> None:
        matrix = columns().transpose(0, 1).reshape(dimension, samples * locations)
        total.add_(matrix @ matrix.T)

    def rows() -> None:
        matrix = columns().transpose(1, 2).reshape(samples * locations, dimension)
        total.add_(matrix.T @ matrix)

    def batched() -> None:
        matrices = columns()
        total.add_(torch.bmm(matrices, matrices.transpose(1, 2)).sum(0))

    found: dict[str, Callable[[], object]] = {"side by side": side_by_side, "rows": rows}
    if locations == 1:
        # Rows need no copy here, and one product per sample is pointless.
        del found["side by side"]
    elif 4 * samples * dimension**2 <= LARGEST_PRODUCTS:
        found["a product a sample"] = batched
    return found


def reference(layer: Layer, side: str, values: torch.Tensor) -> torch.Tensor:
    """The covariance in float64.

    Args:
        layer: the layer.
        side: "A" or "G".
        values: its input or output gradient.

    Returns:
        Its sum of outer products, float64.
    """
    dimension = layer.input_dimension if side == "A" else layer.output_dimension
    piece = max(1, LARGEST_PIECE // (dimension * layer.locations))
    total = torch.zeros(dimension, dimension, dtype=torch.float64, device=values.device)
    for part in values.split(piece):
        columns = unfolded(layer, part.double()) if side == "A" else as_columns(part.double())
        matrix = columns.transpose(0, 1).reshape(dimension, -1)
        total.addmm_(matrix, matrix.T)
    return total


def as_columns(dout: torch.Tensor) -> torch.Tensor:
    """Output gradients (N, c, T)."""
    return dout.reshape(dout.shape[0], dout.shape[1], -1)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative error in the Frobenius norm."""
    return float((found.double() - expected).norm() / expected.norm())
