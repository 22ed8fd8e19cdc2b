"""Measures the peaks of the card: large cuBLAS matrix products, and a large copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.record import Record
from benchmarks.gpu.roofline import Peaks
from benchmarks.gpu.timing import alternate, quartiles

PRECISIONS = ("float32", "tf32", "bfloat16")


@contextmanager
def products_in(precision: str) -> Iterator[torch.dtype]:
    """Makes torch multiply float32 matrices in full float32 or in TF32.

    Args:
        precision: "float32", "tf32" or "bfloat16".

    Yields:
        The data type of the matrices.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield torch.bfloat16 if precision == "bfloat16" else torch.float32
    finally:
        torch.set_float32_matmul_precision(before)


def measure_peaks(bench: Bench, record: Record, *, rounds: int = 9) -> Peaks:
    """Measures and records the peaks.

    Args:
        bench: the device.
        record: the record to write to.
        rounds: number of timings.

    Returns:
        The peaks, from the fastest round.
    """
    side, values = (256, 2**20) if record.dry_run else (8192, 2**29)
    operations: dict[str, float] = {}
    for precision in PRECISIONS:
        with products_in(precision) as dtype:
            a, b = (bench.draw(side, side, seed=seed).to(dtype) for seed in (1, 2))
            out = torch.empty_like(a)
            times = alternate(
                {"product": lambda a=a, b=b, out=out: torch.mm(a, b, out=out)},
                bench.clock,
                rounds=rounds,
                warm_up=3,
            )["product"]
        operations[precision] = 2 * side**3 / (1e-3 * min(times))
        record.add(
            "peak",
            of=precision,
            side=side,
            quartiles_ms=quartiles(times),
            operations_a_second=operations[precision],
        )
    source = bench.draw(values // 4, seed=3).repeat(4)
    target = torch.empty_like(source)
    times = alternate({"copy": lambda: target.copy_(source)}, bench.clock, rounds=rounds, warm_up=3)["copy"]
    moved = 2 * source.numel() * source.element_size()
    bandwidth = moved / (1e-3 * min(times))
    record.add("peak", of="bytes", bytes=moved, quartiles_ms=quartiles(times), bytes_a_second=bandwidth)
    return Peaks(operations, bandwidth)
