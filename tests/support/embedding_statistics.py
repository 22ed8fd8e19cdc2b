"""Cases and a float64 oracle for the native operators of embedding statistics, for CPU, emulator and GPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.support.aot import AotLibrary, AotOperator
from tests.support.cuda_statistics import (
    CAPTURE_ERROR,
    PASSES,
    PERIOD,
    PRODUCT,
    PRODUCTS,
    SCALE,
    STAGED_WEIGHTS,
    tolerance,
)
from tests.support.staged import COLUMNS, ROWS, TAPS, signs


@dataclass
class Table:
    """An embedding table of ``vocabulary`` rows of ``width`` numbers; ``shape`` is that of the ids."""

    shape: tuple[int, ...]
    vocabulary: int
    width: int
    reduce: bool = False
    mean_reduction: bool = True
    gradient_scale: float = 0.5
    dtype: str = "float32"
    # Ids outside of the table on either side.
    outside: int = 0

    def attributes(self, separate: bool, precision: str) -> dict[str, object]:
        """What the operator reads when it is created."""
        return {
            "convolution": False,
            "bias": False,
            "vocabulary": self.vocabulary,
            "reduce": self.reduce,
            "mean_reduction": self.mean_reduction,
            "gradient_scale": self.gradient_scale,
            "separate": separate,
            "precision": precision,
        }

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self.shape[0] if self.shape else 1


TABLES = {
    "one_id_per_sample": Table((40,), 7, 5),
    "expand": Table((6, 7), 5, 9),
    "reduce": Table((6, 7), 5, 9, reduce=True),
    "reduce_one_location": Table((40,), 7, 5, reduce=True),
    "two_axes": Table((3, 4, 5), 6, 4, reduce=True),
    "no_batch_axis": Table((), 3, 4),
    "outside": Table((6, 40), 5, 9, outside=2),
    "outside_reduce": Table((6, 40), 5, 9, reduce=True, outside=2),
    "large_vocabulary": Table((4, 33), 3000, 10, reduce=True, mean_reduction=False),
    "large_width": Table((9, 50), 11, 140, gradient_scale=1.0),
    "many_ids": Table((90, 33), 3, 6, reduce=True),
    "float16": Table((6, 7), 5, 9, dtype="float16"),
}


class Embedding:
    """The operator's arrays for one table, and what they must hold after some passes of one batch.

    Args:
        table: the table.
        rng: draws the batch, and what the staged arrays hold of an older one.
        separate: whether the gate opens separately for A and G.
        precision: of the products on a GPU.
    """

    def __init__(
        self, table: Table, rng: np.random.Generator, separate: bool = False, precision: str = "float32"
    ) -> None:
        self.table, self.separate, self.precision = table, separate, precision
        high = table.vocabulary + table.outside
        self.ids = rng.integers(-table.outside, high, table.shape).astype(np.int32)
        self.dout = rng.standard_normal((*table.shape, table.width)).astype(table.dtype)
        self.A = rng.standard_normal(table.vocabulary).astype(np.float32)
        self.G = rng.standard_normal((table.width, table.width)).astype(np.float32)
        self.start = [self.A.copy(), self.G.copy()]
        self.record = np.zeros(STAGED_WEIGHTS + 2, np.float32)
        self.record[PERIOD] = 2
        self.gate = np.array(3, np.int32)
        self.output = np.zeros(1, np.float32)

    def operator(self, library: AotLibrary) -> AotOperator:
        """The operator for these arrays."""
        inputs = [self.ids, self.dout, self.gate, self.A, self.G, self.record]
        attributes = self.table.attributes(self.separate, self.precision)
        return library.operator("EmbeddingStatistics", inputs, [self.output], **attributes)

    def one_hot(self) -> np.ndarray:
        """The inputs that the embedding stands for, (N, T, V); zeros for ids outside of the table."""
        ids = self.ids.reshape(self.table.samples, -1)
        return (ids[:, :, None] == np.arange(self.table.vocabulary)).astype(np.float64)

    def check_A(self, calls: int = 1) -> None:
        """Holds A to the diagonal of the second moment of so many passes that add up."""
        inputs = self.one_hot()
        rows = inputs.mean(axis=1) if self.table.reduce else inputs.reshape(-1, self.table.vocabulary)
        expected = calls * (rows**2).sum(axis=0)
        # Each sample's number is rounded, and each addition.
        error = (self.table.samples * calls + 2) * 2.0**-24 if self.table.reduce else 0.0
        assert (abs(self.A - expected) <= error * expected).all()
        assert self.record[STAGED_WEIGHTS] == calls * self.table.samples

    def check_G(self, calls: int = 1) -> None:
        """The same for G."""
        table = self.table
        scale = table.gradient_scale * (table.samples if table.mean_reduction else 1)
        g = scale * self.dout.astype(np.float64).reshape(table.samples, -1, table.width)
        locations = g.shape[1]
        rows = g.sum(axis=1) if table.reduce else g.reshape(-1, table.width)
        # Sums over locations add a roundoff each, to what they would be without cancellation.
        size = abs(g).sum(axis=1) if table.reduce else abs(rows)
        summed = 2 * locations * 2.0**-24 if table.reduce else 0.0
        allowed = calls * (summed + tolerance(self.precision, len(rows))) * (size.T @ size)
        assert (abs(self.G - calls * rows.T @ rows) <= allowed).all()
        assert self.record[STAGED_WEIGHTS + 1] == calls * len(rows)

    def check_record(self, calls: int = 1) -> None:
        """Holds the record's numbers of the capture check, and the passes, to those of so many passes."""
        u = self.one_hot() @ signs(ROWS, self.table.vocabulary)
        of_columns = signs(COLUMNS, self.table.width) * signs(TAPS, 1)
        v = (self.dout.astype(np.float64) @ of_columns).reshape(u.shape)
        assert self.record[PASSES] == calls
        product, scale = (u * v).sum(), np.sqrt((u**2).sum() * (v**2).sum())
        # u is exact; v sums `width` numbers that may cancel.
        rounding = self.table.width * 2.0**-24 * abs(self.dout.astype(np.float64)).sum()
        allowed = calls * (CAPTURE_ERROR * scale + rounding)
        for place in (PRODUCT, PRODUCTS):
            assert abs(self.record[place] - calls * product) <= allowed
        assert abs(self.record[SCALE] - calls * scale) <= allowed

    def check(self, calls: int = 1) -> None:
        """All of these."""
        self.check_A(calls)
        self.check_G(calls)
        self.check_record(calls)
