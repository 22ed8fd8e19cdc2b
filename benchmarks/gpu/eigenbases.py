"""Eigenbases of ResNet-50's factors for EKFAC: one kernel call against torch, one by one.

torch calls cuSOLVER's ``syevd`` or ``syevj`` on a GPU, and LAPACK in a dry run.
"""

from __future__ import annotations

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.inverses import DAMPING, factors_of
from benchmarks.gpu.kernel_calls import EigenbasisCall
from benchmarks.gpu.peaks import products_in
from benchmarks.gpu.record import Record, part_parser
from benchmarks.gpu.resnet50_layers import resnet50_layers, small_layers
from benchmarks.gpu.timing import alternate, paired_ratios, summary

# torch takes seconds for all factors.
ROUNDS, WARM_UP = 3, 1


def main() -> None:
    """Measures both forms."""
    arguments = part_parser(__doc__).parse_args()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    bench = Bench(dry_run=arguments.dry_run)
    layers = small_layers() if arguments.dry_run else resnet50_layers()
    sums, counts = factors_of(bench, layers)
    native = EigenbasisCall(bench, layers, sums=sums, weights=counts, damping=DAMPING)

    def one_by_one() -> None:
        for pair, divisors in zip(sums, counts):
            for matrix, divisor in zip(pair, divisors):
                torch.linalg.eigh(matrix / divisor)

    with products_in("float32"):
        calls = {"kernel": native.run, "torch one by one": one_by_one}
        times = alternate(calls, bench.clock, rounds=ROUNDS, warm_up=WARM_UP)
    record.add(
        "eigenbases",
        sizes=sorted((len(matrix) for pair in sums for matrix in pair), reverse=True),
        forms=summary(times),
        time_over_kernel_quartiles=paired_ratios(times, "kernel"),
    )


if __name__ == "__main__":
    main()
