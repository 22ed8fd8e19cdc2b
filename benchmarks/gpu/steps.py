"""Work of every step: preconditioning ResNet-50's gradients, momentum, and calls without work."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.kernel_calls import MomentumCall, PreconditionCall, RefreshCall, StatisticsCall
from benchmarks.gpu.peaks import measure_peaks, products_in
from benchmarks.gpu.record import Record, part_parser
from benchmarks.gpu.resnet50_layers import Layer, resnet50_layers, small_layers
from benchmarks.gpu.timing import alternate, paired_ratios, quartiles, summary

ROUNDS, WARM_UP = 25, 3
IDLE_CALLS, IDLE_ROUNDS = 500, 7
RULE = {"momentum": 0.9, "scale": 0.5, "learning_rate": 0.01, "decay": 1e-4}


def precondition_by_torch(
    gradients: Sequence[torch.Tensor], inverses: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> list[torch.Tensor]:
    """Two products per layer, followed by the inner products of gradients and updates.

    Args:
        gradients: the parameters' gradients; only the last layer has a bias.
        inverses: the inverses of A and G of each layer.

    Returns:
        The updates, and a vector of the inner products.
    """
    updates: list[torch.Tensor] = []
    for index, (A, G) in enumerate(inverses):
        weight = gradients[index]
        matrix = weight.flatten(1)
        if index < len(inverses) - 1:
            updates.append((G @ matrix @ A).view_as(weight))
        else:
            both = G @ torch.cat((matrix, gradients[index + 1].unsqueeze(1)), 1) @ A
            updates += [both[:, :-1], both[:, -1]]
    products = torch.stack([(gradient * update).sum() for gradient, update in zip(gradients, updates)])
    return [*updates, products]


def random_layers(
    bench: Bench, layers: Sequence[Layer]
) -> tuple[list[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    """Random gradients of all parameters, and random symmetric matrices as the inverses of A and G."""
    shapes = [shape for layer in layers for shape in layer.parameter_shapes]
    gradients = [bench.draw(*shape, seed=index) for index, shape in enumerate(shapes)]
    inverses = []
    for index, layer in enumerate(layers):
        A = bench.draw(layer.input_dimension, layer.input_dimension, seed=1000 + index)
        G = bench.draw(layer.output_dimension, layer.output_dimension, seed=2000 + index)
        inverses.append(((A + A.T) / 2, (G + G.T) / 2))
    return gradients, inverses


def measure_precondition(bench: Bench, record: Record, layers: Sequence[Layer], rounds: int) -> None:
    """Preconditions all gradients in one call, in float32 and in TF32, against cuBLAS in both."""
    gradients, inverses = random_layers(bench, layers)

    def by_kernel(precision: str) -> Callable[[], None]:
        return PreconditionCall(
            bench, layers, gradients=gradients, inverses=inverses, precision=precision
        ).run

    def by_torch(precision: str) -> Callable[[], None]:
        def call() -> None:
            with products_in(precision):
                precondition_by_torch(gradients, inverses)

        return call

    calls = {
        "kernel": by_kernel("float32"),
        "kernel tf32": by_kernel("tf32"),
        "torch float32": by_torch("float32"),
        "torch tf32": by_torch("tf32"),
    }
    times = alternate(calls, bench.clock, rounds=rounds, warm_up=WARM_UP)
    dimensions = [(layer.output_dimension, layer.input_dimension) for layer in layers]
    record.add(
        "precondition",
        operations=sum(2 * e * d * (e + d) for e, d in dimensions),
        bytes=4 * sum(e * e + d * d + 2 * e * d for e, d in dimensions),
        forms=summary(times),
        time_over_kernel_quartiles=paired_ratios(times, "kernel"),
    )


class Weights:
    """ResNet-50's trainable weights with moments and updates.

    Args:
        bench: the device.
        layers: the layers; every convolution is followed by the two vectors of a normalization.
    """

    def __init__(self, bench: Bench, layers: Sequence[Layer]) -> None:
        shapes: list[tuple[int, ...]] = []
        self.preconditioned: list[bool] = []
        for layer in layers:
            vectors = [] if layer.dense else [(layer.outputs,)] * 2
            shapes += [*layer.parameter_shapes, *vectors]
            self.preconditioned += [True] * len(layer.parameter_shapes) + [False] * len(vectors)
        self.updates = [bench.draw(*shape, seed=index) for index, shape in enumerate(shapes)]
        self.weights = [bench.draw(*shape, seed=500 + index) for index, shape in enumerate(shapes)]
        self.moments = [torch.zeros_like(weight) for weight in self.weights]


def foreach_step(weights: Weights) -> Callable[[], None]:
    """The same step by torch's foreach operators."""
    scales = [RULE["scale"] if flag else 1.0 for flag in weights.preconditioned]

    def call() -> None:
        updates = torch._foreach_mul(weights.updates, scales)
        torch._foreach_add_(updates, weights.weights, alpha=RULE["decay"])
        torch._foreach_mul_(weights.moments, RULE["momentum"])
        torch._foreach_add_(weights.moments, updates)
        torch._foreach_add_(weights.weights, weights.moments, alpha=-RULE["learning_rate"])

    return call


def fused_sgd(weights: Weights) -> Callable[[], None]:
    """Torch's fused SGD, which does everything except the scale."""
    parameters = [torch.nn.Parameter(weight) for weight in weights.weights]
    for parameter, update in zip(parameters, weights.updates):
        parameter.grad = update
    optimizer = torch.optim.SGD(
        parameters, RULE["learning_rate"], RULE["momentum"], weight_decay=RULE["decay"], fused=True
    )
    return lambda: optimizer.step()


def native_step(bench: Bench, weights: Weights) -> Callable[[], None]:
    """The step by the kernel."""
    return MomentumCall(
        bench,
        updates=weights.updates,
        weights=weights.weights,
        moments=weights.moments,
        preconditioned=weights.preconditioned,
        rule=RULE,
    ).run


def measure_momentum(bench: Bench, record: Record, layers: Sequence[Layer], rounds: int) -> None:
    """Times one step of all weights, against torch's two forms."""
    own, other, third = (Weights(bench, layers) for _ in range(3))
    calls = {
        "kernel": native_step(bench, own),
        "torch foreach": foreach_step(other),
        "torch fused SGD": fused_sgd(third),
    }
    times = alternate(calls, bench.clock, rounds=rounds, warm_up=WARM_UP)
    count = sum(weight.numel() for weight in own.weights)
    record.add(
        "momentum",
        weights=count,
        # Update, weight and moment are read; weight and moment are written.
        bytes=5 * 4 * count,
        forms=summary(times),
        time_over_kernel_quartiles=paired_ratios(times, "kernel"),
    )


def microseconds_a_call(bench: Bench, call: Callable[[], Any], calls: int) -> float:
    """Mean wall time of many calls, until the device has finished the last."""
    call()
    bench.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    bench.synchronize()
    return 1e6 * (time.perf_counter() - start) / calls


def measure_idle(bench: Bench, record: Record, layers: Sequence[Layer], calls: int) -> None:
    """Times calls with a closed gate and refreshes that are not due, against a scalar addition in torch."""
    layer = next(layer for layer in layers if layer.kernel == 3)
    x, dout = bench.draw(*layer.input_shape(4), seed=1), bench.draw(*layer.gradient_shape(4), seed=2)
    closed = StatisticsCall(bench, layer, x=x, dout=dout, gate=0, precision="float32")
    sums = [
        (bench.zeros(*(layer.input_dimension,) * 2), bench.zeros(*(layer.output_dimension,) * 2))
        for layer in layers
    ]
    not_due = RefreshCall(bench, layers, sums=sums, weights=[(1.0, 1.0)] * len(layers), damping=1e-3, due=0)
    number = bench.zeros(1)
    # The first two go through Python, ctypes and the operator, the third through torch's dispatcher.
    forms = {"closed gate": closed.run, "refresh not due": not_due.run, "torch add_": lambda: number.add_(1)}
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(IDLE_ROUNDS):
        for name, call in forms.items():
            times[name].append(microseconds_a_call(bench, call, calls))
    record.add(
        "nothing to do",
        microseconds_a_call={name: quartiles(values) for name, values in times.items()},
        raw_microseconds=times,
    )


def main() -> None:
    """Measures all three."""
    arguments = part_parser(__doc__).parse_args()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    bench = Bench(dry_run=arguments.dry_run)
    layers = small_layers() if arguments.dry_run else resnet50_layers()
    rounds = 2 if arguments.dry_run else ROUNDS
    with record.attempt("nothing to do"):
        measure_idle(bench, record, layers, 5 if arguments.dry_run else IDLE_CALLS)
    with record.attempt("peaks"):
        measure_peaks(bench, record)
    with record.attempt("precondition"):
        measure_precondition(bench, record, layers, rounds)
    with record.attempt("momentum"):
        measure_momentum(bench, record, layers, rounds)


if __name__ == "__main__":
    main()
