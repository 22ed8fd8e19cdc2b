"""Runs every kernel of a K-FAC step on small layers; the program for compute-sanitizer."""

from __future__ import annotations

import sys

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.kernel_calls import (
    PRECISION_ATTRIBUTES,
    MomentumCall,
    PreconditionCall,
    RefreshCall,
    StatisticsCall,
)
from benchmarks.gpu.resnet50_layers import small_layers
from benchmarks.gpu.steps import RULE

BATCH = 3


def main() -> None:
    """Runs the kernels."""
    bench = Bench(dry_run="--dry-run" in sys.argv)
    layers = small_layers()
    sums, divisors, gradients = [], [], []
    for index, layer in enumerate(layers):
        x = bench.draw(*layer.input_shape(BATCH), seed=index)
        dout = bench.draw(*layer.gradient_shape(BATCH), seed=100 + index)
        for precision in PRECISION_ATTRIBUTES:
            for gate in (3, 0):
                statistics = StatisticsCall(bench, layer, x=x, dout=dout, gate=gate, precision=precision)
                statistics.run()
                if gate:
                    kept = statistics
        sums.append((kept.A, kept.G))
        divisors.append((float(BATCH), float(BATCH * layer.locations)))
        gradients += [bench.draw(*shape, seed=200 + index) for shape in layer.parameter_shapes]
    refresh = RefreshCall(bench, layers, sums=sums, weights=divisors, damping=0.01)
    refresh.run()
    precondition = PreconditionCall(bench, layers, gradients=gradients, inverses=refresh.inverses)
    precondition.run()
    weights = [gradient.clone() for gradient in gradients]
    MomentumCall(
        bench,
        updates=precondition.updates,
        weights=weights,
        moments=[bench.zeros(*weight.shape) for weight in weights],
        preconditioned=[True] * len(weights),
        rule=RULE,
    ).run()
    bench.synchronize()
    finite = all(bool(weight.isfinite().all()) for weight in weights)
    print(f"weights are {'finite' if finite else 'not finite'}")
    raise SystemExit(not finite)


if __name__ == "__main__":
    main()
