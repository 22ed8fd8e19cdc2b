"""Kernel calls on layers of ResNet-50, with their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.resnet50_layers import Layer

# The attributes that select the arithmetic of a statistics kernel.
PRECISION_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "tf32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
}


class StatisticsCall:
    """Computes the statistics of one layer's batch, replacing those of the last batch.

    Args:
        bench: the device.
        layer: the layer.
        x: its input.
        dout: its output gradient.
        gate: 0 for nothing, 1 for A, 2 for G, 3 for both.
        precision: a key of ``PRECISION_ATTRIBUTES``.
    """

    def __init__(
        self, bench: Bench, layer: Layer, *, x: torch.Tensor, dout: torch.Tensor, gate: int, precision: str
    ) -> None:
        self.A = bench.zeros(layer.input_dimension, layer.input_dimension)
        self.G = bench.zeros(layer.output_dimension, layer.output_dimension)
        # A statistics period of one pass.
        self.record = torch.tensor([0.0, 1.0, *[0.0] * 5], device=bench.device)
        self.run = bench.operator(
            "KroneckerStatistics",
            [
                x,
                dout,
                bench.number(gate, torch.int32),
                self.A,
                self.G,
                self.record,
            ],
            [bench.zeros(1)],
            separate=True,
            reduce=False,
            mean_reduction=False,
            gradient_scale=1.0,
            **layer.geometry(),
            **PRECISION_ATTRIBUTES[precision],
        )


class RefreshCall:
    """Recomputes the damped inverses of all layers.

    Args:
        bench: the device.
        layers: the layers.
        sums: the sums for A and G of each layer.
        weights: their divisors, one per layer and side.
        damping: lambda.
        due: 0 for a call without work.
    """

    def __init__(
        self,
        bench: Bench,
        layers: Sequence[Layer],
        *,
        sums: Sequence[tuple[torch.Tensor, torch.Tensor]],
        weights: Sequence[tuple[float, float]],
        damping: float,
        due: int = 1,
    ) -> None:
        self.inverses = [(torch.zeros_like(A), torch.zeros_like(G)) for A, G in sums]
        arrays: list[torch.Tensor] = []
        for pair, divisors, inverses in zip(sums, weights, self.inverses):
            arrays += [*pair, torch.tensor(divisors, device=bench.device), *inverses]
        self.run = bench.operator(
            "KroneckerRefresh",
            [bench.number(due, torch.int32), bench.number(damping), *arrays],
            [bench.zeros(1)],
            layers="\n".join(layer.name for layer in layers),
            splits=[1] * len(layers),
        )


class EigenbasisCall:
    """Recomputes the eigenbases of the factors of all layers.

    Args:
        bench: the device.
        layers: the layers.
        sums: the sums for A and G of each layer.
        weights: their divisors, one per layer and side.
        damping: lambda.
    """

    def __init__(
        self,
        bench: Bench,
        layers: Sequence[Layer],
        *,
        sums: Sequence[tuple[torch.Tensor, torch.Tensor]],
        weights: Sequence[tuple[float, float]],
        damping: float,
    ) -> None:
        self.vectors = [(torch.zeros_like(A), torch.zeros_like(G)) for A, G in sums]
        self.values = [(bench.zeros(1, len(A)), bench.zeros(len(G), 1)) for A, G in sums]
        arrays: list[torch.Tensor] = []
        for (A, G), divisors, vectors, values in zip(sums, weights, self.vectors, self.values):
            counts = torch.tensor([*divisors, 1.0], device=bench.device)
            arrays += [A, G, counts, *vectors, bench.zeros(len(G), len(A)), bench.number(0.0)]
            arrays += [*values, bench.number(0.0)]
        self.run = bench.operator(
            "EigenbasisRefresh",
            [bench.number(1, torch.int32), bench.number(damping), *arrays],
            [bench.zeros(1)],
            layers="\n".join(layer.name for layer in layers),
        )


class PreconditionCall:
    """Multiplies the gradients of all layers by their inverses.

    Args:
        bench: the device.
        layers: the layers.
        gradients: the parameters' gradients, layer by layer.
        inverses: the inverses of A and G of each layer.
        precision: "float32" or "tf32".
    """

    def __init__(
        self,
        bench: Bench,
        layers: Sequence[Layer],
        *,
        gradients: Sequence[torch.Tensor],
        inverses: Sequence[tuple[torch.Tensor, torch.Tensor]],
        precision: str = "float32",
    ) -> None:
        ones = [1] * len(layers)
        self.updates = [torch.zeros_like(gradient) for gradient in gradients]
        self.products = bench.zeros(len(gradients))
        self.run = bench.operator(
            "KroneckerPrecondition",
            [*gradients, *(array for A, G in inverses for array in (G, A))],
            [*self.updates, self.products],
            gradients=len(gradients),
            positions=list(range(len(gradients))),
            groups=ones,
            biases=[int(layer.dense) for layer in layers],
            left_arrays=ones,
            right_arrays=ones,
            scales=[0] * len(layers),
            precision=precision,
        )


class MomentumCall:
    """One step of heavy-ball momentum with weight decay on all weights, in place.

    Args:
        bench: the device.
        updates: one per weight.
        weights: the weights.
        moments: one per weight.
        preconditioned: per weight, whether the scale multiplies its update.
        rule: momentum, scale, learning_rate and decay.
    """

    def __init__(
        self,
        bench: Bench,
        *,
        updates: Sequence[torch.Tensor],
        weights: Sequence[torch.Tensor],
        moments: Sequence[torch.Tensor],
        preconditioned: Sequence[bool],
        rule: dict[str, float],
    ) -> None:
        numbers = [bench.number(rule[name]) for name in ("momentum", "scale", "learning_rate", "decay")]
        self.run = bench.operator(
            "MomentumStep",
            [*numbers, *updates, *weights, *moments],
            [bench.zeros(1)],
            preconditioned=[int(flag) for flag in preconditioned],
            decayed=[1] * len(weights),
            sources=list(range(len(weights))),
            rates=1,
            decays=1,
            updates=len(updates),
            nesterov=False,
            decoupled=False,
        )
