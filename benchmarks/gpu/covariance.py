"""Covariances of ResNet-50's layers: the kernel, torch's unfold with cuBLAS, and the SYRK roofline.

The kernel computes the statistics of a batch; torch adds them to running sums. Both store the full float32
matrix. The kernel's time includes the capture check, which reads both sides. Every layer shape is measured
once, A and G separately; the record holds the number of layers with that shape.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.covariances import as_columns, forms, unfolded
from benchmarks.gpu.kernel_calls import StatisticsCall
from benchmarks.gpu.peaks import PRECISIONS, measure_peaks, products_in
from benchmarks.gpu.record import Record, part_parser
from benchmarks.gpu.resnet50_layers import Layer, distinct, resnet50_layers, small_layers
from benchmarks.gpu.roofline import Peaks, gradient_work, input_work
from benchmarks.gpu.timing import alternate, paired_ratios, summary

BATCHES = (32, 256)
ROUNDS, WARM_UP = 15, 3


def measure(bench: Bench, record: Record, peaks: Peaks, layer: Layer, count: int, batch: int) -> None:
    """Measures both sides of one layer shape in every precision.

    Args:
        bench: the device.
        record: the record to write to.
        peaks: the measured peaks of the card.
        layer: the layer.
        count: number of layers with this shape.
        batch: samples.
    """
    x = bench.draw(*layer.input_shape(batch), seed=1).relu_()
    dout = bench.draw(*layer.gradient_shape(batch), seed=2)
    for side in ("A", "G"):
        for precision in PRECISIONS:
            what = f"{side} of {layer.name}, batch {batch}, {precision}"
            with record.attempt(what), products_in(precision) as dtype:
                values = (x if side == "A" else dout).to(dtype)
                found = _measure_side(bench, record, layer, side, values, precision)
                work = (input_work if side == "A" else gradient_work)(layer, batch, values.element_size())
                floor = peaks.floor_milliseconds(work, precision)
                for result in found["forms"].values():
                    result["percent_of_roofline"] = 100 * floor / result["quartiles_ms"][1]
                record.add(
                    "covariance",
                    layer=layer.name,
                    count=count,
                    side=side,
                    batch=batch,
                    precision=precision,
                    dimension=layer.input_dimension if side == "A" else layer.output_dimension,
                    rows=batch * layer.locations,
                    operations=work.operations,
                    bytes=work.bytes,
                    floor_ms=floor,
                    floor_of=peaks.limit(work, precision),
                    **found,
                )


def _measure_side(
    bench: Bench, record: Record, layer: Layer, side: str, values: torch.Tensor, precision: str
) -> dict[str, Any]:
    batch = values.shape[0]
    native = StatisticsCall(
        bench, layer, **_arrays(bench, layer, side, values), gate=1 if side == "A" else 2, precision=precision
    )
    total = torch.zeros_like(native.A if side == "A" else native.G)
    columns: Callable[[], torch.Tensor] = (
        partial(unfolded, layer, values) if side == "A" else partial(as_columns, values)
    )
    calls: dict[str, Callable[[], object]] = {"kernel": native.run}
    calls.update(forms(columns, (batch, len(total), layer.locations), total))
    for name, call in list(calls.items()):
        with record.attempt(f"{name}: {side} of {layer.name}, batch {batch}, {precision}"):
            call()
            bench.synchronize()
            continue
        del calls[name]
    rounds = 2 if record.dry_run else ROUNDS
    times = alternate(calls, bench.clock, rounds=rounds, warm_up=1 if record.dry_run else WARM_UP)
    results = summary(times)
    others = [name for name in results if name != "kernel"]
    best = min(others, key=lambda name: results[name]["quartiles_ms"][1], default=None)
    ratios = paired_ratios(times, "kernel") if "kernel" in times else {}
    return {"forms": results, "best_of_torch": best, "time_over_kernel_quartiles": ratios}


def _arrays(bench: Bench, layer: Layer, side: str, values: torch.Tensor) -> dict[str, torch.Tensor]:
    # The gate excludes the other side's array. The capture check reads it regardless of its values.
    if side == "A":
        return {
            "x": values,
            "dout": torch.empty(layer.gradient_shape(len(values)), dtype=values.dtype, device=bench.device),
        }
    return {
        "x": torch.empty(layer.input_shape(len(values)), dtype=values.dtype, device=bench.device),
        "dout": values,
    }


def main() -> None:
    """Measures as many layers as the time allows, the larger batch first."""
    arguments = part_parser(__doc__).parse_args()
    end = time.monotonic() + arguments.seconds
    record = Record(arguments.record, dry_run=arguments.dry_run)
    bench = Bench(dry_run=arguments.dry_run)
    peaks = measure_peaks(bench, record)
    layers = distinct(small_layers() if arguments.dry_run else resnet50_layers())
    for batch in (4, 2) if arguments.dry_run else sorted(BATCHES, reverse=True):
        for layer, count in layers:
            if time.monotonic() > end:
                record.add("out of time", before=f"{layer.name}, batch {batch}")
                return
            with record.attempt(f"{layer.name}, batch {batch}"):
                measure(bench, record, peaks, layer, count, batch)


if __name__ == "__main__":
    main()
