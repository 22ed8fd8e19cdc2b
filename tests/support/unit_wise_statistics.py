"""Cases and a float64 oracle for the native operators of unit-wise statistics, for CPU, emulator and GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.support.aot import AotLibrary, AotOperator
from tests.oracle.unit_wise import normalize
from tests.support.cuda_statistics import (
    CAPTURE_ERROR,
    PASSES,
    PERIOD,
    PRODUCT,
    PRODUCTS,
    SCALE,
    STAGED_WEIGHTS,
)
from tests.support.staged import COLUMNS, ROWS, TAPS, signs

EPSILON = 1e-3


@dataclass
class Normalization:
    """A normalization layer and its batch.

    ``shape`` is that of x, ``gamma`` that of gamma.
    """

    moments: str
    shape: tuple[int, ...]
    gamma: tuple[int, ...]
    centered: bool = True
    channels_last: bool = False
    channel_groups: int = 1
    bias: bool = True
    mean_reduction: bool = True
    gradient_scale: float = 0.5
    dtype: str = "float32"
    mean: float = 3.0

    def attributes(self) -> dict[str, object]:
        """What the operator reads when it is created."""
        return {
            "moments": self.moments,
            "epsilon": EPSILON,
            "centered": self.centered,
            "channels_last": self.channels_last,
            "channel_groups": self.channel_groups,
            "shape": list(self.gamma),
            "bias": self.bias,
            "mean_reduction": self.mean_reduction,
            "gradient_scale": self.gradient_scale,
        }

    @property
    def channels(self) -> int:
        """The number of elements of gamma."""
        return int(np.prod(self.gamma))

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self.shape[0] if len(self.shape) > 1 else 1

    def rows(self, values: np.ndarray) -> np.ndarray:
        """Values as (N, T, C), in float64."""
        values = values.astype(np.float64)
        if self.channels_last:
            return values.reshape(self.samples, -1, self.channels)
        return values.reshape(self.samples, self.channels, -1).transpose(0, 2, 1)

    def x_hat(self, x: np.ndarray) -> np.ndarray:
        """The normalized inputs, (N, T, C)."""
        rows = self.rows(x)
        samples, positions, _ = rows.shape
        if self.moments == "batch":
            return normalize(rows, (0, 1), EPSILON)
        if self.moments == "group":
            groups = rows.reshape(samples, positions, self.channel_groups, -1)
            return normalize(groups, (1, 3), EPSILON).reshape(rows.shape)
        if self.moments == "position" and self.centered:
            return normalize(rows, (2,), EPSILON)
        if self.moments == "position":
            return rows / np.sqrt((rows**2).mean(axis=2, keepdims=True) + EPSILON)
        return rows

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A batch's x, with a mean, and dout."""
        x, dout = self.mean + rng.standard_normal(self.shape), rng.standard_normal(self.shape)
        return x.astype(self.dtype), dout.astype(self.dtype)


LAYERS = {
    "batch": Normalization("batch", (6, 5, 4, 7), (5,)),
    "batch_many": Normalization("batch", (40, 3, 18, 17), (3,), gradient_scale=1.0),
    "batch_dense": Normalization("batch", (300, 20), (20,), mean_reduction=False),
    "batch_channels_last": Normalization("batch", (5, 4, 3, 70), (70,), channels_last=True),
    "batch_one_channel": Normalization("batch", (9, 1, 3), (1,)),
    "batch_large_mean": Normalization("batch", (8, 3, 5, 5), (3,), mean=1000.0),
    "batch_float16": Normalization("batch", (6, 5, 4, 7), (5,), dtype="float16"),
    "group": Normalization("group", (4, 6, 5, 3), (6,), channel_groups=2),
    "group_large": Normalization("group", (2, 4, 60, 50), (4,), channel_groups=1),
    "group_dense": Normalization("group", (7, 40), (40,), channel_groups=5),
    "instance": Normalization("group", (3, 4, 6, 5), (4,), channel_groups=4),
    "layer": Normalization("position", (4, 6, 30), (30,), channels_last=True),
    "layer_axes": Normalization("position", (4, 5, 2, 3, 4), (2, 3, 4), channels_last=True),
    "layer_wide": Normalization("position", (2, 33, 300), (300,), channels_last=True),
    "layer_many": Normalization("position", (300, 40, 8), (8,), channels_last=True, bias=False),
    "layer_one_sample": Normalization("position", (12,), (12,), channels_last=True),
    "layer_float16": Normalization("position", (4, 6, 30), (30,), channels_last=True, dtype="float16"),
    "root_mean_square": Normalization(
        "position", (4, 6, 30), (30,), centered=False, channels_last=True, bias=False
    ),
    "scale": Normalization("none", (4, 6, 30), (30,), channels_last=True, bias=False),
}


class UnitWise:
    """The operator's arrays for one layer, and what they must hold after some passes of one batch.

    Args:
        layer: the layer.
        rng: draws the batch, and what the staged arrays hold of an older one.
    """

    def __init__(self, layer: Normalization, rng: np.random.Generator) -> None:
        self.layer = layer
        self.x, self.dout = layer.draw(rng)
        self.sums = [rng.standard_normal(shape).astype(np.float32) for shape in self.shapes()]
        self.start = [array.copy() for array in self.sums]
        self.record = np.zeros(STAGED_WEIGHTS + 1, np.float32)
        self.record[PERIOD] = 2
        self.gate = np.array(3, np.int32)
        self.output = np.zeros(1, np.float32)

    def shapes(self) -> list[tuple[int, ...]]:
        """Of squares and cross."""
        return [(2, self.layer.channels), (self.layer.channels,)]

    def operator(self, library: AotLibrary) -> AotOperator:
        """The operator for these arrays."""
        inputs = [self.x, self.dout, self.gate, *self.sums, self.record]
        return library.operator("UnitWiseStatistics", inputs, [self.output], **self.layer.attributes())

    def check(self, calls: int = 1) -> None:
        """Holds sums and record to those of so many passes that add up."""
        layer = self.layer
        x_hat, dout = layer.x_hat(self.x), layer.rows(self.dout)
        g = dout * layer.gradient_scale * (layer.samples if layer.mean_reduction else 1)
        gamma, beta = (g * x_hat).sum(axis=1), g.sum(axis=1)
        # x - mean is rounded as x is, in units of the deviation; sums over positions add a roundoff each, to
        # what they would be without cancellation.
        error = 2.0**-24 * (8 * (1 + abs(layer.mean)) + x_hat.shape[1])
        of_gamma, of_beta = abs(g * x_hat).sum(axis=1), abs(g).sum(axis=1)
        found = [*self.sums[0], self.sums[1]]
        for sums, (one, other), (of_one, of_other) in zip(
            found,
            ((gamma, gamma), (beta, beta), (gamma, beta)),
            ((of_gamma, of_gamma), (of_beta, of_beta), (of_gamma, of_beta)),
        ):
            expected = calls * (one * other).sum(axis=0)
            allowed = calls * 2 * error * (of_one * of_other).sum(axis=0)
            assert (abs(sums - expected) <= allowed).all(), (abs(sums - expected) / allowed).max()
        assert self.record[PASSES] == calls
        assert self.record[STAGED_WEIGHTS] == calls * layer.samples
        product, scale = self.capture(x_hat, dout)
        allowed = calls * CAPTURE_ERROR * (1 + abs(layer.mean)) * scale
        for place in (PRODUCT, PRODUCTS):
            assert abs(self.record[place] - calls * product) <= allowed
        assert abs(self.record[SCALE] - calls * scale) <= allowed

    def capture(self, x_hat: np.ndarray, dout: np.ndarray) -> tuple[float, float]:
        """The product and the scale of one pass."""
        layer = self.layer
        rows, columns, *taps = (*layer.gamma, 1)
        gamma: Any = np.einsum(
            "i,j,k->ijk", signs(ROWS, rows), signs(COLUMNS, columns), signs(TAPS, int(np.prod(taps)))
        )
        u = x_hat * gamma.reshape(-1)
        if layer.bias:
            u = u + signs(ROWS, layer.channels)
        return float((u * dout).sum()), float(np.sqrt((u**2).sum() * (dout**2).sum()))

    def check_untouched(self) -> None:
        """Holds sums and record to what they were before."""
        for found, before in zip(self.sums, self.start):
            np.testing.assert_array_equal(found, before)
        assert not self.record[[PASSES, *range(PRODUCT, len(self.record))]].any()
