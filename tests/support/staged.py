"""What a staged batch must hold, in float64, and the records and signs that operators share with Python."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.cuda_statistics import Layer

PASSES, PERIOD, PRODUCT, PRODUCTS, SCALE, WEIGHTS = range(6)
ROWS, COLUMNS, TAPS = 1, 2, 3


def signs(axis: int, count: int) -> np.ndarray:
    """+1 or -1 for each index along an axis: the lowest bit of MurmurHash3's finalizer."""
    mask = 0xFFFFFFFF
    values = []
    for index in range(count):
        bits = (index * 0x9E3779B1 + axis * 0x85EBCA6B) & mask
        bits ^= bits >> 16
        bits = (bits * 0x85EBCA6B) & mask
        bits ^= bits >> 13
        bits = (bits * 0xC2B2AE35) & mask
        bits ^= bits >> 16
        values.append(-1.0 if bits & 1 else 1.0)
    return np.array(values)


def signed_sum(weight: np.ndarray, bias: np.ndarray | None) -> float:
    """r^T W s, with the bias."""
    matrix = weight.astype(np.float64).reshape(len(weight), weight.shape[1] if weight.ndim > 1 else 1, -1)
    rows, columns, taps = (signs(axis, size) for axis, size in zip((ROWS, COLUMNS, TAPS), matrix.shape))
    total = np.einsum("ock,o,c,k->", matrix, rows, columns, taps)
    return float(total if bias is None else total + rows @ bias)


def record_of(weights: int, period: int = 1) -> np.ndarray:
    """An empty record."""
    record = np.zeros(WEIGHTS + weights, np.float32)
    record[PERIOD] = period
    return record


def capture_check(layer: Layer, x: np.ndarray, dout: np.ndarray) -> tuple[float, float]:
    """The product and the scale of one pass."""
    a, g = layer.all_vectors(x, dout)
    # As delivered.
    g = g / (layer.gradient_scale * (layer.samples if layer.mean_reduction else 1))
    taps = layer.kernel[0] * layer.kernel[1] if layer.kernel else 1
    columns = np.outer(signs(COLUMNS, layer.inputs // layer.groups), signs(TAPS, taps)).reshape(-1)
    if layer.bias:
        columns = np.append(columns, 1.0)
    u = a @ columns
    v = np.einsum("gnto,go->gnt", g, signs(ROWS, layer.outputs).reshape(layer.groups, -1))
    scale = np.sqrt((u**2).sum(axis=(1, 2))) * np.sqrt((v**2).sum(axis=(1, 2)))
    return float((u * v).sum()), float(scale.sum())


class Kind:
    """A statistics operator: its arrays, each with its weight, and what one batch adds to them.

    Args:
        layer: the layer.
        rng: draws what the arrays hold before the first pass, which must not matter.
        options: attributes in addition to the layer's.
    """

    name: str
    weight_of: tuple[int, ...]
    weights: int

    def __init__(self, layer: Layer, rng: np.random.Generator, **options: Any) -> None:
        self.layer = layer
        self.attributes = {**layer.attributes(), **options}
        a, g = layer.vectors(*layer.draw(rng))
        self.groups, self.d, self.e = a.shape[0], a.shape[-1], g.shape[-1]
        self.arrays = [rng.standard_normal(shape).astype(np.float32) for shape in self.shapes()]
        self.record = record_of(self.weights)
        self.gate = np.array(3, np.int32)

    def shapes(self) -> list[tuple[int, ...]]:
        """Of the arrays."""
        return [(self.groups, self.d, self.d), (self.groups, self.e, self.e)]

    def inputs(self) -> list[np.ndarray]:
        """The operator's, behind x, dout and the gate."""
        return [*self.arrays, self.record]

    def counts(self) -> list[float]:
        """What one pass adds to each weight if it takes everything."""
        locations = self.layer.vectors(*self.layer.draw(np.random.default_rng(0)))[1].shape[2]
        return [self.layer.samples, self.layer.samples * locations]

    def batch(self, x: np.ndarray, dout: np.ndarray) -> list[np.ndarray]:
        """What one batch adds to each array."""
        return [_second_moment(vectors) for vectors in self.layer.vectors(x, dout)]


class Kronecker(Kind):
    """A and G."""

    name, weight_of, weights = "KroneckerStatistics", (0, 1), 2


class TraceRestricted(Kind):
    """Phi, Psi and delta, all of one weight."""

    name, weight_of, weights = "TraceRestrictedStatistics", (0, 0, 0), 1

    def shapes(self) -> list[tuple[int, ...]]:
        return [*super().shapes(), (self.groups,)]

    def counts(self) -> list[float]:
        return [self.layer.samples]

    def batch(self, x: np.ndarray, dout: np.ndarray) -> list[np.ndarray]:
        a, g = self.layer.vectors(x, dout)
        norms_a, norms_g = (a**2).sum(axis=-1), (g**2).sum(axis=-1)
        return [
            np.einsum("gnt,gnti,gntj->gij", norms_g, a, a),
            np.einsum("gnt,gnti,gntj->gij", norms_a, g, g),
            np.einsum("gnt,gnt->g", norms_a, norms_g),
        ]


class ShermanMorrison(Kind):
    """A, G and their diagonals; A and G only while `full` is 1."""

    name, weight_of, weights = "ShermanMorrisonStatistics", (0, 1, 2, 3), 4

    def __init__(self, layer: Layer, rng: np.random.Generator, **options: Any) -> None:
        super().__init__(layer, rng, **options)
        self.full = np.array(1, np.float32)

    def shapes(self) -> list[tuple[int, ...]]:
        return [*super().shapes(), (self.groups, self.d), (self.groups, self.e)]

    def inputs(self) -> list[np.ndarray]:
        return [*super().inputs(), self.full]

    def counts(self) -> list[float]:
        return super().counts() * 2

    def batch(self, x: np.ndarray, dout: np.ndarray) -> list[np.ndarray]:
        matrices = super().batch(x, dout)
        return [*matrices, *(np.diagonal(matrix, axis1=1, axis2=2) for matrix in matrices)]


class Eigenbasis(Kind):
    """A, G, and s in the bases Q_A and Q_G."""

    name, weight_of, weights = "EigenbasisStatistics", (0, 1, 2), 3

    def __init__(self, layer: Layer, rng: np.random.Generator, **options: Any) -> None:
        super().__init__(layer, rng, **options)
        self.bases = [
            np.linalg.qr(rng.standard_normal((self.groups, size, size)))[0].astype(np.float32)
            for size in (self.d, self.e)
        ]

    def shapes(self) -> list[tuple[int, ...]]:
        return [*super().shapes(), (self.groups, self.e, self.d)]

    def inputs(self) -> list[np.ndarray]:
        A, G, s = self.arrays
        return [A, G, self.record, *self.bases, s]

    def counts(self) -> list[float]:
        return [*super().counts(), self.layer.samples]

    def batch(self, x: np.ndarray, dout: np.ndarray) -> list[np.ndarray]:
        a, g = self.layer.all_vectors(x, dout)
        Q_A, Q_G = (basis.astype(np.float64) for basis in self.bases)
        gradients = np.einsum("gnto,gnti->gnoi", g, a)
        rotated = np.einsum("gop,gnoi,giq->gnpq", Q_G, gradients, Q_A)
        return [*super().batch(x, dout), (rotated**2).sum(axis=1)]


KINDS = (Kronecker, TraceRestricted, ShermanMorrison, Eigenbasis)


def _second_moment(vectors: np.ndarray) -> np.ndarray:
    flat = vectors.reshape(vectors.shape[0], -1, vectors.shape[-1])
    return np.einsum("gki,gkj->gij", flat, flat)
