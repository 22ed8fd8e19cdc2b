"""Cases and a float64 oracle for CUDA operators of layer statistics, for the emulator and for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.support.cuda_capture import Capture, capture

# Unit roundoff of what operands are rounded to before they are multiplied.
ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}


def tolerance(precision: str, depth: int) -> float:
    """Largest error of an entry of sum_k a_k b_k, relative to the bound sum_k |a_k b_k|.

    Both operands are rounded once; sums of up to ``depth`` products in float32 add at most one roundoff for
    each addition.
    """
    return 2.1 * ROUNDOFF[precision] + (depth + 8) * 2.0**-24


@dataclass
class Layer:
    """A layer's geometry and batch sizes; without a kernel it is dense on (N, locations, features)."""

    inputs: int
    outputs: int
    samples: int = 3
    size: tuple[int, int] = (6, 5)
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    same: bool = False
    groups: int = 1
    bias: bool = False
    reduce: bool = False
    mean_reduction: bool = True
    gradient_scale: float = 0.5
    locations: tuple[int, ...] = ()
    dtype: str = "float32"
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kernel is None:
            self.shapes["x"] = (self.samples, *self.locations, self.inputs)
            self.shapes["dout"] = (self.samples, *self.locations, self.outputs)
            return
        self.shapes["x"] = (self.samples, self.inputs, *self.size)
        top, bottom, left, right = self.pads()
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation)]
        padded = (self.size[0] + top + bottom, self.size[1] + left + right)
        out = [(p - r) // s + 1 for p, r, s in zip(padded, reach, self.stride)]
        self.shapes["dout"] = (self.samples, self.outputs, *out)

    def pads(self) -> tuple[int, int, int, int]:
        """Zeros above, below, left and right."""
        if not self.same or self.kernel is None:
            return self.padding
        pads = []
        for size, k, s, d in zip(self.size, self.kernel, self.stride, self.dilation):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            pads += [total // 2, total - total // 2]
        return (pads[0], pads[1], pads[2], pads[3])

    def attributes(self) -> dict[str, object]:
        """What the operators read when they are created."""
        own: dict[str, object] = {
            "convolution": self.kernel is not None,
            "bias": self.bias,
            "reduce": self.reduce,
            "mean_reduction": self.mean_reduction,
            "gradient_scale": float(self.gradient_scale),
        }
        if self.kernel is not None:
            own.update(
                groups=self.groups,
                same_padding=self.same,
                padding=list(self.padding),
                kernel_size=list(self.kernel),
                stride=list(self.stride),
                dilation=list(self.dilation),
            )
        return own

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A batch's x, with a mean, and dout."""
        x = rng.standard_normal(self.shapes["x"]) + 0.5
        dout = rng.standard_normal(self.shapes["dout"])
        kind = np.float16 if self.dtype == "float16" else np.float32
        return x.astype(kind), dout.astype(kind)

    def vectors(self, x: np.ndarray, dout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (groups, N, T, d), a bias's ones among them, and scaled gradients (groups, N, T, e).

        In the reduce setting T is 1.
        """
        a, g = self.all_vectors(x, dout)
        if self.reduce:
            a, g = a.mean(axis=2, keepdims=True), g.sum(axis=2, keepdims=True)
        return a, g

    def all_vectors(self, x: np.ndarray, dout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same with all locations in the reduce setting, too."""
        x, dout = x.astype(np.float64), dout.astype(np.float64)
        scale = self.gradient_scale * (self.samples if self.mean_reduction else 1)
        if self.kernel is None:
            a = x.reshape(1, self.samples, -1, self.inputs)
            g = dout.reshape(1, self.samples, -1, self.outputs)
        else:
            a, g = self._patches(x), dout.reshape(self.samples, self.groups, -1, self._area(dout))
            g = g.transpose(1, 0, 3, 2)
        g = g * scale
        if self.bias:
            a = np.concatenate([a, np.ones((*a.shape[:3], 1))], axis=3)
        return a, g

    @staticmethod
    def _area(dout: np.ndarray) -> int:
        return int(dout.shape[2] * dout.shape[3])

    def _patches(self, x: np.ndarray) -> np.ndarray:
        assert self.kernel is not None
        top, bottom, left, right = self.pads()
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        rows, columns = self.shapes["dout"][2:]
        taps = []
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                y0, x0 = i * self.dilation[0], j * self.dilation[1]
                y1, x1 = y0 + (rows - 1) * self.stride[0] + 1, x0 + (columns - 1) * self.stride[1] + 1
                taps.append(padded[:, :, y0 : y1 : self.stride[0], x0 : x1 : self.stride[1]])
        stacked = np.stack(taps, axis=2)  # (N, C, taps, rows, columns)
        grouped = stacked.reshape(self.samples, self.groups, -1, rows * columns)
        return grouped.transpose(1, 0, 3, 2)


def second_moment(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of outer products over samples and locations, (groups, d, d), and the same of absolute values."""
    flat = vectors.reshape(vectors.shape[0], -1, vectors.shape[-1])
    return np.einsum("gki,gkj->gij", flat, flat), np.einsum("gki,gkj->gij", abs(flat), abs(flat))


# Where a record has what.
PASSES, PERIOD, PRODUCT, PRODUCTS, SCALE, STAGED_WEIGHTS = range(6)
# How near the capture check's product must be to float64's, relative to its scale: float32 sums over the
# channels that take part, whose errors are independent between locations.
CAPTURE_ERROR = 1e-5


class Batch:
    """What operators of layer statistics take for one layer.

    Args:
        layer: the layer.
        rng: draws the batch, and what the staged arrays hold of an older one.
        weights: how many the layer's statistics have.
        period: how many passes add up. With two, a test's first pass replaces and its second one joins.
    """

    def __init__(self, layer: Layer, rng: np.random.Generator, weights: int, period: int = 2) -> None:
        self.layer = layer
        self.x, self.dout = layer.draw(rng)
        self.a, self.g = layer.vectors(self.x, self.dout)
        self.record = np.zeros(STAGED_WEIGHTS + weights, np.float32)
        self.record[PERIOD] = period
        self.gate = np.array(3, np.int32)
        self.sums = [_symmetric(rng, vectors) for vectors in (self.a, self.g)]
        self.start = [matrices.copy() for matrices in self.sums]
        self.output = np.zeros(1, np.float32)

    def check_sum(
        self, side: int, vectors: np.ndarray, precision: str = "float32", calls: int = 1, roundings: int = 0
    ) -> None:
        """Holds a side's sum after some calls that add up to that of float64.

        Args:
            side: 0 for inputs, 1 for gradients.
            vectors: what its second moment is of.
            precision: of the operands of products.
            calls: how often the operator ran.
            roundings: of float32 in a product, in addition to those of operands and sums.
        """
        expected, bound = second_moment(vectors)
        depth = calls * vectors.shape[1] * vectors.shape[2]
        error = abs(self.sums[side] - calls * expected)
        allowed = tolerance(precision, depth + roundings) * calls * bound
        assert (error <= allowed).all(), (error / allowed).max()
        np.testing.assert_array_equal(self.sums[side], self.sums[side].transpose(0, 2, 1))

    def check_untouched(self, side: int) -> None:
        """Holds a side's sum to what it was before."""
        np.testing.assert_array_equal(self.sums[side], self.start[side])

    def weight(self, side: int) -> float:
        """What a pass adds to a factor's weight."""
        vectors = (self.a, self.g)[side]
        return float(vectors.shape[1] * (vectors.shape[2] if side else 1))

    def capture(self) -> Capture:
        """What a pass records."""
        return capture(self.layer, self.x, self.dout)

    def check_record(self, taken: Sequence[float], calls: int = 1) -> None:
        """Holds the record to that of some passes that add up; each takes so much of every weight."""
        product, scale = self.capture()
        assert self.record[PASSES] == calls
        np.testing.assert_array_equal(self.record[STAGED_WEIGHTS:], calls * np.array(taken))
        for place in (PRODUCT, PRODUCTS):
            assert abs(self.record[place] - calls * product) <= calls * CAPTURE_ERROR * scale
        assert abs(self.record[SCALE] - calls * scale) <= calls * CAPTURE_ERROR * scale

    def check_record_empty(self) -> None:
        """No pass has been recorded."""
        assert not self.record[[PASSES, *range(PRODUCT, len(self.record))]].any()

    def check_rounded(self, side: int, vectors: np.ndarray, precision: str) -> None:
        """Holds a side's sum to be one of rounded operands, and not float32 under another name."""
        expected, bound = second_moment(vectors)
        error = abs(self.sums[side] - expected)
        assert error.max() > 1e-2 * tolerance(precision, 0) * bound.max()


def _symmetric(rng: np.random.Generator, vectors: np.ndarray) -> np.ndarray:
    groups, size = vectors.shape[0], vectors.shape[-1]
    matrices = rng.standard_normal((groups, size, size)).astype(np.float32)
    return np.ascontiguousarray(matrices + matrices.transpose(0, 2, 1))


# Every path of the kernels: dense and convolutions, few and many features (tiles of 64 and of 128, several of
# them, on and off the diagonal), depths in one part and in many, large images, strides, dilations,
# groups, biases, padding.
LAYERS = {
    "dense": Layer(10, 7, samples=5, bias=True),
    "dense_many": Layer(150, 70, samples=300),
    "dense_locations": Layer(9, 33, samples=4, locations=(3, 2), bias=True),
    "dense_reduce": Layer(9, 33, samples=4, locations=(3, 2), bias=True, reduce=True),
    "dense_float16": Layer(20, 12, samples=40, bias=True, dtype="float16"),
    "conv3x3": Layer(5, 6, kernel=(3, 3), padding=(1, 1, 1, 1), samples=40, size=(8, 7)),
    "conv_wide": Layer(24, 65, kernel=(3, 3), padding=(1, 1, 1, 1), samples=2, bias=True),
    "conv_odd": Layer(4, 6, kernel=(2, 3), stride=(2, 1), dilation=(3, 2), padding=(0, 2, 1, 3), bias=True),
    "conv_same": Layer(3, 4, kernel=(3, 3), stride=(2, 2), same=True, size=(7, 6), mean_reduction=False),
    "conv_groups": Layer(8, 6, kernel=(3, 3), padding=(1, 1, 1, 1), groups=2, bias=True),
    "conv_reduce": Layer(4, 6, kernel=(3, 3), padding=(1, 1, 1, 1), groups=2, reduce=True, bias=True),
    "conv_large": Layer(6, 3, kernel=(2, 2), samples=2, size=(40, 30), bias=True),
    "conv_float16": Layer(4, 6, kernel=(3, 3), padding=(1, 1, 1, 1), dtype="float16"),
    # More than 90 taps: those of one channel don't fit into the memory that assembles lags.
    "conv10x10": Layer(2, 3, kernel=(10, 10), padding=(5, 4, 5, 4), samples=2, size=(4, 3)),
}

# Convolutions that can be summed by lags: more taps in one direction, none or much padding, kernels that hang
# over the image on both sides; channels that fill a tile, or several of 64 or of 128, a bias that needs a
# tile of its own; depths in parts.
LAG_LAYERS = {
    **{name: LAYERS[name] for name in ("conv3x3", "conv_wide", "conv_groups", "conv_float16")},
    "kernel2x3": Layer(5, 4, kernel=(2, 3), padding=(0, 1, 2, 0), size=(5, 6), bias=True),
    "kernel5x5": Layer(3, 4, kernel=(5, 5), padding=(2, 2, 2, 2), size=(7, 6), bias=True),
    "kernel1x7": Layer(3, 4, kernel=(1, 7), padding=(0, 0, 3, 3), size=(3, 9), samples=2),
    "kernel8x1": Layer(34, 2, kernel=(8, 1), padding=(4, 3, 0, 0), size=(9, 2), samples=2),
    "no_padding": Layer(4, 3, kernel=(3, 3), size=(6, 7)),
    "much_padding": Layer(4, 3, kernel=(3, 2), padding=(4, 5, 3, 2), size=(3, 4)),
    "small_image": Layer(4, 3, kernel=(3, 3), padding=(2, 2, 1, 2), size=(1, 2), bias=True),
    "same_padding": Layer(4, 3, kernel=(2, 4), same=True, size=(5, 5), mean_reduction=False),
    "channels64": Layer(64, 3, kernel=(1, 2), padding=(0, 0, 0, 1), samples=16, size=(12, 9), bias=True),
    "channels70": Layer(70, 3, kernel=(3, 3), padding=(1, 1, 1, 1), samples=2, size=(3, 3)),
    "channels130": Layer(
        260, 6, kernel=(2, 2), padding=(1, 0, 0, 1), samples=2, size=(2, 3), groups=2, bias=True
    ),
    "channels200": Layer(200, 3, kernel=(1, 2), padding=(0, 0, 0, 1), samples=10, size=(4, 3), bias=True),
}
