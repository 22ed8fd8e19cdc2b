"""Damped inverses of ResNet-50's factors: one kernel call against torch, one by one and batched.

Each computes pi from the traces, damps, and inverts A and G of 54 layers by Cholesky. torch's factorizations
do not wait for their error codes, which avoids 108 reads by the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.kernel_calls import RefreshCall
from benchmarks.gpu.peaks import products_in
from benchmarks.gpu.record import Record, part_parser
from benchmarks.gpu.resnet50_layers import Layer, resnet50_layers, small_layers
from benchmarks.gpu.timing import alternate, paired_ratios, summary

DAMPING = 1e-3
ROUNDS, WARM_UP = 9, 2
Pair = tuple[torch.Tensor, torch.Tensor]


def factors_of(bench: Bench, layers: Sequence[Layer]) -> tuple[list[Pair], list[tuple[float, float]]]:
    """Creates sums of outer products whose variances decay like 1 / k, and their counts.

    Args:
        bench: the device.
        layers: the layers.

    Returns:
        The sums for A and G of every layer, and their counts.
    """
    sums, counts = [], []
    for index, layer in enumerate(layers):
        pair, rows = [], []
        for side, size in enumerate((layer.input_dimension, layer.output_dimension)):
            scale = torch.arange(1, size + 1, device=bench.device).rsqrt()
            matrix = bench.draw(2 * size, size, seed=2 * index + side) * scale
            with products_in("float32"):
                pair.append(matrix.T @ matrix)
            rows.append(2.0 * size)
        sums.append((pair[0], pair[1]))
        counts.append((rows[0], rows[1]))
    return sums, counts


def damped(sums: Pair, counts: tuple[float, float], dtype: torch.dtype) -> Pair:
    """Both damped factors of a layer, by torch, without a host synchronization."""
    A, G = (total.to(dtype) / count for total, count in zip(sums, counts))
    pi = (A.diagonal().mean() / G.diagonal().mean()).sqrt()
    root = sqrt(DAMPING)
    A.diagonal().add_(root * pi)
    G.diagonal().add_(root / pi)
    return A, G


class TorchRefresh:
    """The inverses by torch.

    Args:
        sums: the sums for A and G.
        counts: their divisors.
    """

    def __init__(self, sums: Sequence[Pair], counts: Sequence[tuple[float, float]]) -> None:
        self.sums, self.counts = sums, counts
        self.inverses: list[Pair] = [(torch.zeros_like(A), torch.zeros_like(G)) for A, G in sums]

    def one_by_one(self) -> None:
        """One factorization and inverse per factor."""
        for pair, count, targets in zip(self.sums, self.counts, self.inverses):
            for matrix, target in zip(damped(pair, count, torch.float32), targets):
                target.copy_(torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix).L))

    def batched(self) -> None:
        """One batched factorization and inverse per factor size."""
        by_size: dict[int, list[Pair]] = {}
        for pair, count, targets in zip(self.sums, self.counts, self.inverses):
            for matrix, target in zip(damped(pair, count, torch.float32), targets):
                by_size.setdefault(len(matrix), []).append((matrix, target))
        for entries in by_size.values():
            stacked = torch.stack([matrix for matrix, _ in entries])
            inverses = torch.cholesky_inverse(torch.linalg.cholesky_ex(stacked).L)
            for inverse, (_, target) in zip(inverses, entries):
                target.copy_(inverse)


def main() -> None:
    """Measures all forms."""
    arguments = part_parser(__doc__).parse_args()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    bench = Bench(dry_run=arguments.dry_run)
    layers = small_layers() if arguments.dry_run else resnet50_layers()
    sums, counts = factors_of(bench, layers)
    native = RefreshCall(bench, layers, sums=sums, weights=counts, damping=DAMPING)
    other = TorchRefresh(sums, counts)
    with products_in("float32"):
        calls = {
            "kernel": native.run,
            "torch one by one": other.one_by_one,
            "torch in batches": other.batched,
        }
        for name, call in list(calls.items()):
            with record.attempt(name):
                call()
                bench.synchronize()
                continue
            del calls[name]
        rounds = 2 if arguments.dry_run else ROUNDS
        times = alternate(calls, bench.clock, rounds=rounds, warm_up=WARM_UP)
    sizes = sorted((len(matrix) for pair in sums for matrix in pair), reverse=True)
    record.add(
        "inverses",
        sizes=sizes,
        # Factorization and inverse of a symmetric matrix: n^3 / 2 multiplications and as many additions.
        operations=sum(size**3 for size in sizes),
        forms=summary(times),
        time_over_kernel_quartiles=paired_ratios(times, "kernel") if "kernel" in times else {},
    )


if __name__ == "__main__":
    main()
