"""The least time that the covariance of one side of a layer can take, from peaks that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.gpu.resnet50_layers import Layer


@dataclass(frozen=True)
class Work:
    """What one call must do and move at least.

    Attributes:
        operations: multiplications and additions.
        bytes: read and written, each number once.
    """

    operations: int
    bytes: int


def syrk_work(rows: int, dimension: int, values: int, value_bytes: int) -> Work:
    """Of C + X^T X with a symmetric C that is kept in full.

    Args:
        rows: of X.
        dimension: columns of X.
        values: numbers that X is made of; fewer than its entries where X holds patches of images.
        value_bytes: size of one of them.

    Returns:
        A multiplication and an addition for each row and each of the d (d + 1) / 2 different entries; the
        values read, and C, float32, read and written.
    """
    return Work(rows * dimension * (dimension + 1), values * value_bytes + 2 * 4 * dimension**2)


def input_work(layer: Layer, batch: int, value_bytes: int) -> Work:
    """Of a layer's A."""
    values = batch * layer.inputs * max(layer.image, 1) ** 2
    return syrk_work(batch * layer.locations, layer.input_dimension, values, value_bytes)


def gradient_work(layer: Layer, batch: int, value_bytes: int) -> Work:
    """Of a layer's G."""
    rows = batch * layer.locations
    return syrk_work(rows, layer.output_dimension, rows * layer.outputs, value_bytes)


@dataclass(frozen=True)
class Peaks:
    """What the card was seen to do in the same run.

    Attributes:
        operations: a second, for each precision of a large matrix product.
        bytes: a second, read and written, of a large copy.
    """

    operations: Mapping[str, float]
    bytes: float

    def floor_milliseconds(self, work: Work, precision: str) -> float:
        """The longer of the two times that the work needs: for its arithmetic, and for its bytes."""
        return 1e3 * max(work.operations / self.operations[precision], work.bytes / self.bytes)

    def limit(self, work: Work, precision: str) -> str:
        """Which of the two it is: "operations" or "bytes"."""
        arithmetic = work.operations / self.operations[precision]
        return "operations" if arithmetic > work.bytes / self.bytes else "bytes"
