"""The oracle of the capture check: ``r^T dW s`` of a layer's batch, from its weight gradient in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tests.support.cuda_statistics import Layer

ROWS, COLUMNS, TAPS = 1, 2, 3
UINT32 = np.uint64(0xFFFFFFFF)


def signs(axis: int, count: int) -> np.ndarray:
    """The first signs of an axis, by MurmurHash3's finalizer (Appleby, fmix32)."""
    h = (np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B1) + np.uint64(axis * 0x85EBCA6B)) & UINT32
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = ((h ^ (h >> np.uint64(shift))) * np.uint64(factor)) & UINT32
    return np.where(h & np.uint64(1), -1.0, 1.0)


class Capture(NamedTuple):
    """What a pass records: the product, and the scale of its rounding errors."""

    product: float
    scale: float


def capture(layer: Layer, x: np.ndarray, dout: np.ndarray) -> Capture:
    """Both in float64, by way of the weight gradient of every group.

    Output gradients are as delivered, without the scale of statistics, and every location counts.
    """
    a, g = layer.all_vectors(x, dout)
    g = g / (layer.gradient_scale * (layer.samples if layer.mean_reduction else 1))
    taps = 1 if layer.kernel is None else layer.kernel[0] * layer.kernel[1]
    features = a.shape[3] - layer.bias
    of_inputs = np.outer(signs(COLUMNS, features // taps), signs(TAPS, taps)).ravel()
    of_inputs = np.concatenate([of_inputs, np.ones(int(layer.bias))])
    of_outputs = signs(ROWS, layer.outputs).reshape(a.shape[0], -1)
    dW = np.einsum("gnte,gntd->ged", g, a)
    product = np.einsum("ge,ged,d->", of_outputs, dW, of_inputs)
    u, v = a @ of_inputs, np.einsum("gnte,ge->gnt", g, of_outputs)
    scale = (np.sqrt((u**2).sum(axis=(1, 2))) * np.sqrt((v**2).sum(axis=(1, 2)))).sum()
    return Capture(float(product), float(scale))
