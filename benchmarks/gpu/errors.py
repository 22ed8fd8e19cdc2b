"""Errors of the kernels on ResNet-50's layers against float64, each with a threshold. Nothing is timed.

The layers have their full sizes, unlike those of ``tests/gpu``. Only here long sums are split into many
parts, matrices have many tiles, and one call has all layers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from benchmarks.gpu import thresholds
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.covariances import reference, relative_error
from benchmarks.gpu.inverses import DAMPING, damped, factors_of
from benchmarks.gpu.kernel_calls import EigenbasisCall, PreconditionCall, RefreshCall, StatisticsCall
from benchmarks.gpu.peaks import PRECISIONS, products_in
from benchmarks.gpu.record import Record, part_parser
from benchmarks.gpu.resnet50_layers import Layer, distinct, resnet50_layers, small_layers
from benchmarks.gpu.steps import Weights, foreach_step, native_step, precondition_by_torch, random_layers

BATCHES = (32, 256)
STEPS = 2


def check_covariances(bench: Bench, record: Record, layer: Layer, batch: int) -> None:
    """Both statistics of a layer, in one call per precision.

    Args:
        bench: the device.
        record: the record to write to.
        layer: the layer.
        batch: samples.
    """
    x = bench.draw(*layer.input_shape(batch), seed=1).relu_()
    dout = bench.draw(*layer.gradient_shape(batch), seed=2)
    for precision in PRECISIONS:
        with record.attempt(f"{layer.name}, batch {batch}, {precision}"), products_in(precision) as dtype:
            arrays = {"A": x.to(dtype), "G": dout.to(dtype)}
            call = StatisticsCall(bench, layer, x=arrays["A"], dout=arrays["G"], gate=3, precision=precision)
            call.run()
            bench.synchronize()
            for side, found in (("A", call.A), ("G", call.G)):
                exact = reference(layer, side, arrays[side])
                largest = reference(layer, side, arrays[side].abs())
                rows = batch * layer.locations
                record.check(
                    f"{side} of {layer.name}, batch {batch}, {precision}",
                    error=relative_error(found, exact),
                    threshold=thresholds.covariance(precision, rows, float(largest.norm() / exact.norm())),
                    dimension=len(exact),
                    rows=rows,
                )


def check_inverses(bench: Bench, record: Record, layers: Sequence[Layer]) -> None:
    """The damped inverses of all layers' factors, of one call."""
    sums, counts = factors_of(bench, layers)
    refresh = RefreshCall(bench, layers, sums=sums, weights=counts, damping=DAMPING)
    refresh.run()
    bench.synchronize()
    for index, layer in enumerate(layers):
        for side, matrix in enumerate(damped(sums[index], counts[index], torch.float64)):
            exact = torch.linalg.inv(matrix)
            condition = float(torch.linalg.matrix_norm(matrix, 1) * torch.linalg.matrix_norm(exact, 1))
            record.check(
                f"inverse of {'AG'[side]} of {layer.name}",
                error=relative_error(refresh.inverses[index][side], exact),
                threshold=thresholds.inverse(len(matrix), condition),
                dimension=len(matrix),
                condition=condition,
            )


def check_eigenbases(bench: Bench, record: Record, layers: Sequence[Layer]) -> None:
    """The eigenvectors and eigenvalues of all layers' factors, of one call: what they give back."""
    sums, counts = factors_of(bench, layers)
    call = EigenbasisCall(bench, layers, sums=sums, weights=counts, damping=DAMPING)
    call.run()
    bench.synchronize()
    for index, layer in enumerate(layers):
        for side in (0, 1):
            Q, S = call.vectors[index][side].double(), call.values[index][side].double().flatten()
            exact = sums[index][side].double() / counts[index][side]
            name, threshold = f"{'AG'[side]} of {layer.name}", thresholds.eigenbasis(len(Q))
            record.check(
                f"eigenbasis of {name}",
                error=relative_error(Q * S @ Q.T, exact),
                threshold=threshold,
                dimension=len(Q),
            )
            identity = torch.eye(len(Q), dtype=torch.float64, device=bench.device)
            record.check(
                f"orthogonality of the eigenbasis of {name}",
                error=relative_error(Q.T @ Q, identity),
                threshold=threshold,
            )


def check_precondition(bench: Bench, record: Record, layers: Sequence[Layer]) -> None:
    """All preconditioned gradients, and their inner products with the gradients, of one call."""
    gradients, inverses = random_layers(bench, layers)
    exact = precondition_by_torch(
        [gradient.double() for gradient in gradients], [(A.double(), G.double()) for A, G in inverses]
    )
    of = [layer for layer in layers for _ in layer.parameter_shapes]
    sizes = [(layer.output_dimension, layer.input_dimension) for layer in of]
    for precision in ("float32", "tf32"):
        call = PreconditionCall(bench, layers, gradients=gradients, inverses=inverses, precision=precision)
        call.run()
        bench.synchronize()
        for index, (layer, update) in enumerate(zip(of, call.updates)):
            record.check(
                f"update of {layer.name}, {precision}",
                error=relative_error(update, exact[index]),
                threshold=thresholds.precondition(precision, *sizes[index]),
            )
        record.check(
            f"inner products, {precision}",
            error=relative_error(call.products, exact[-1]),
            threshold=max(thresholds.inner_product(precision, *size) for size in sizes),
        )


def check_momentum(bench: Bench, record: Record, layers: Sequence[Layer]) -> None:
    """All weights and moments after two steps."""
    found, exact = Weights(bench, layers), Weights(bench, layers)
    for name in ("updates", "weights", "moments"):
        setattr(exact, name, [array.double() for array in getattr(exact, name)])
    own, last = native_step(bench, found), foreach_step(exact)
    for _ in range(STEPS):
        own()
        last()
    bench.synchronize()
    for name in ("weights", "moments"):
        pairs = zip(getattr(found, name), getattr(exact, name))
        record.check(
            name,
            error=max(relative_error(ours, theirs) for ours, theirs in pairs),
            threshold=thresholds.momentum(),
        )


def check_closed_gate(bench: Bench, record: Record, layer: Layer) -> None:
    """A call with a closed gate must write nothing."""
    x, dout = bench.draw(*layer.input_shape(4), seed=1), bench.draw(*layer.gradient_shape(4), seed=2)
    closed = StatisticsCall(bench, layer, x=x, dout=dout, gate=0, precision="float32")
    closed.run()
    bench.synchronize()
    written = float(closed.A.abs().max() + closed.G.abs().max() + closed.record[0])
    record.check("written with a closed gate", error=written, threshold=0.0)


def main() -> int:
    """Checks the kernels of a step, then the statistics of as many layers as the time allows.

    Returns:
        1 if an error is above its threshold, a call failed, or no time was left for all layers.
    """
    arguments = part_parser(__doc__).parse_args()
    end = time.monotonic() + arguments.seconds
    record = Record(arguments.record, dry_run=arguments.dry_run)
    bench = Bench(dry_run=arguments.dry_run)
    layers = small_layers() if arguments.dry_run else resnet50_layers()
    for name, check in (
        ("inverses", check_inverses),
        ("eigenbases", check_eigenbases),
        ("precondition", check_precondition),
        ("momentum", check_momentum),
    ):
        with record.attempt(name), products_in("float32"):
            check(bench, record, layers)
    with record.attempt("closed gate"):
        check_closed_gate(bench, record, next(layer for layer in layers if layer.kernel == 3))
    for batch in (2, 4) if arguments.dry_run else BATCHES:
        for layer, _ in distinct(layers):
            if time.monotonic() > end:
                record.fail(f"{layer.name}, batch {batch}, and later ones", "no time was left")
                return 1
            check_covariances(bench, record, layer, batch)
    return int(record.failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
