"""Times the unit-wise statistics of normalization layers: native kernel against the fallback, in one process.

    python -m benchmarks.unit_wise [--rounds 15] [--output FILE]

One call stages a batch in a compiled graph. Native and fallback calls alternate within each round, so that
changes of the machine's speed affect both equally.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from model_zoo.common.environment import limit_onednn

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import Parameter, Tensor, nn  # noqa: E402

from benchmarks.covariance import quartiles, times_in_turn  # noqa: E402
from benchmarks.machine import describe_run  # noqa: E402
from ms_kfac.capture.normalization import (  # noqa: E402
    BatchNormOperators,
    GroupNormOperators,
    LayerNormOperators,
    NormalizationOperators,
)
from ms_kfac.kernels import status  # noqa: E402
from ms_kfac.ops.statistics.layer_statistics import EVERYTHING, PERIOD, STAGED_WEIGHTS, StatisticsOptions  # noqa: E402
from ms_kfac.ops.statistics.unit_wise_statistics import UnitWiseStatistics  # noqa: E402


def batch_norm(channels: int) -> NormalizationOperators:
    """Operators of a batch normalization."""
    return BatchNormOperators(bias=True, epsilon=1e-5, shape=(channels,))


# Layers with the shape of their input.
LAYERS: dict[str, tuple[NormalizationOperators, tuple[int, ...]]] = {
    "ResNet-20 layer1, BatchNorm": (batch_norm(16), (128, 16, 32, 32)),
    "ResNet-20 layer2, BatchNorm": (batch_norm(32), (128, 32, 16, 16)),
    "ResNet-20 layer3, BatchNorm": (batch_norm(64), (128, 64, 8, 8)),
    "ResNet-50 layer4, BatchNorm": (batch_norm(2048), (16, 2048, 7, 7)),
    "dense, BatchNorm": (batch_norm(1000), (500, 1000)),
    "GroupNorm of 8 groups": (
        GroupNormOperators(bias=True, epsilon=1e-5, shape=(64,), channel_groups=8),
        (32, 64, 32, 32),
    ),
    "GPT, LayerNorm": (LayerNormOperators(bias=True, epsilon=1e-5, shape=(192,)), (16, 128, 192)),
    "ViT-Base, LayerNorm": (LayerNormOperators(bias=True, epsilon=1e-6, shape=(768,)), (8, 197, 768)),
}


class OneLayer(nn.Cell):
    """Stages one batch of one layer's statistics."""

    def __init__(self, operators: NormalizationOperators, native: bool) -> None:
        super().__init__()
        options = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1.0)
        self.statistics = UnitWiseStatistics(operators, options, native=native)
        if self.statistics.native != native:
            raise RuntimeError(f"no native kernel is available:\n{status()}")
        channels = int(np.prod(operators.shape))
        record = np.zeros(STAGED_WEIGHTS + 1, np.float32)
        record[PERIOD] = 1
        self.gate = self.parameter("gate", np.int32(EVERYTHING))
        self.squares = self.parameter("squares", np.zeros((2, channels), np.float32))
        self.cross = self.parameter("cross", np.zeros(channels, np.float32))
        self.record = self.parameter("record", record)

    def parameter(self, name: str, value: Any) -> Parameter:
        """A Parameter without gradient."""
        return Parameter(Tensor(value), name=name, requires_grad=False)

    def construct(self, x: Tensor, dout: Tensor) -> Tensor:
        """Computes the statistics; reading the returned record waits for them."""
        self.statistics(x, dout, self.gate, self.squares, self.cross, self.record)
        return self.record + 0.0


def measure(operators: NormalizationOperators, shape: tuple[int, ...], rounds: int) -> dict[str, list[float]]:
    """Times both forms on one batch of normal random numbers.

    Args:
        operators: the layer.
        shape: of its input.
        rounds: timed calls of each form.

    Returns:
        Quartiles of the milliseconds of both forms, and of their ratios.
    """
    rng = np.random.default_rng(0)
    x, dout = (Tensor(rng.standard_normal(shape, dtype=np.float32)) for _ in range(2))
    forms = {"native": OneLayer(operators, True), "fallback": OneLayer(operators, False)}
    times = times_in_turn(forms, x, dout, rounds)
    ratios = [fallback / native for fallback, native in zip(times["fallback"], times["native"])]
    return {**{name: quartiles(found) for name, found in times.items()}, "ratio": quartiles(ratios)}


def main() -> None:
    """Measures all layers, and prints and writes a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unit_wise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="a text file to write")
    arguments = parser.parse_args()
    ms.set_context(mode=ms.GRAPH_MODE)
    described = describe_run()
    machine = described["machine"]
    lines = [
        f"commit {described['commit']}, {described['date']}, {machine['processor']}, {machine['cpus']} cores",
        "Medians (quartiles).",
        f"{'layer':<30} {'native ms':>26} {'fallback ms':>26} {'ratio':>24}",
    ]
    for name, (operators, shape) in LAYERS.items():
        found = measure(operators, shape, arguments.rounds)
        columns = [found[key] for key in ("native", "fallback", "ratio")]
        cells = ["{1:.2f} ({0:.2f} to {2:.2f})".format(*column) for column in columns]
        lines.append(f"{name:<30} {cells[0]:>26} {cells[1]:>26} {cells[2]:>24}")
    text = "\n".join(lines)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
