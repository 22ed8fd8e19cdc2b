"""Roofline of the covariance of one side of a layer, from measured peaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.gpu.resnet50_layers import Layer


@dataclass(frozen=True)
class Work:
    """The minimum work of one call.

    Attributes:
        operations: multiplications and additions.
        bytes: minimum bytes read and written.
    """

    operations: int
    bytes: int


def syrk_work(rows: int, dimension: int, values: int, value_bytes: int) -> Work:
    """The work of C + X^T X with a symmetric C that is stored in full.

    Args:
        rows: rows of X.
        dimension: columns of X.
        values: distinct numbers in X; fewer than its entries if X holds image patches.
        value_bytes: size of one number.

    Returns:
        One multiplication and addition per row and distinct entry of C, d (d + 1) / 2; the bytes of the
        values read, and of the float32 C read and written.
    """
    return Work(rows * dimension * (dimension + 1), values * value_bytes + 2 * 4 * dimension**2)


def input_work(layer: Layer, batch: int, value_bytes: int) -> Work:
    """The work of a layer's A."""
    values = batch * layer.inputs * max(layer.image, 1) ** 2
    return syrk_work(batch * layer.locations, layer.input_dimension, values, value_bytes)


def gradient_work(layer: Layer, batch: int, value_bytes: int) -> Work:
    """The work of a layer's G."""
    rows = batch * layer.locations
    return syrk_work(rows, layer.output_dimension, rows * layer.outputs, value_bytes)


@dataclass(frozen=True)
class Peaks:
    """The peaks measured in the same run.

    Attributes:
        operations: operations per second of a large matrix product, by precision.
        bytes: bytes read and written per second by a large copy.
    """

    operations: Mapping[str, float]
    bytes: float

    def floor_milliseconds(self, work: Work, precision: str) -> float:
        """The larger of the arithmetic time and the memory time."""
        return 1e3 * max(work.operations / self.operations[precision], work.bytes / self.bytes)

    def limit(self, work: Work, precision: str) -> str:
        """The limiting one of the two: "operations" or "bytes"."""
        arithmetic = work.operations / self.operations[precision]
        return "operations" if arithmetic > work.bytes / self.bytes else "bytes"
