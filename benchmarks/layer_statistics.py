"""Times the statistics of normalization layers and embeddings: native kernel against the fallback.

    python -m benchmarks.layer_statistics [--rounds 15] [--output FILE]

One call stages a batch in a compiled graph. Native and fallback calls alternate within each round, so that
changes of the machine's speed affect both equally.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_zoo.common.environment import limit_onednn

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import Parameter, Tensor, nn  # noqa: E402

from benchmarks.covariance import quartiles, times_in_turn  # noqa: E402
from benchmarks.machine import describe_run  # noqa: E402
from ms_kfac.capture.embedding import EmbeddingOperators  # noqa: E402
from ms_kfac.capture.normalization import (  # noqa: E402
    BatchNormOperators,
    GroupNormOperators,
    LayerNormOperators,
    NormalizationOperators,
)
from ms_kfac.kernels import status  # noqa: E402
from ms_kfac.ops.statistics.embedding_statistics import EmbeddingStatistics  # noqa: E402
from ms_kfac.ops.statistics.layer_statistics import EVERYTHING, PERIOD, STAGED_WEIGHTS, StatisticsOptions  # noqa: E402
from ms_kfac.ops.statistics.unit_wise_statistics import UnitWiseStatistics  # noqa: E402


def batch_norm(channels: int) -> NormalizationOperators:
    """Operators of a batch normalization."""
    return BatchNormOperators(bias=True, epsilon=1e-5, shape=(channels,))


def layer_norm(width: int) -> NormalizationOperators:
    """Operators of a layer normalization."""
    return LayerNormOperators(bias=True, epsilon=1e-5, shape=(width,))


@dataclass(frozen=True)
class NormalizationCase:
    """A normalization layer and the shape of its input."""

    operators: NormalizationOperators
    shape: tuple[int, ...]

    def statistics(self, native: bool) -> UnitWiseStatistics:
        """The operator."""
        options = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1.0)
        return UnitWiseStatistics(self.operators, options, native=native)

    def staged(self) -> list[tuple[int, ...]]:
        """Shapes of the two staged arrays."""
        channels = int(np.prod(self.operators.shape))
        return [(2, channels), (channels,)]

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The layer's input and output gradient."""
        x, dout = (Tensor(rng.standard_normal(self.shape, dtype=np.float32)) for _ in range(2))
        return x, dout


@dataclass(frozen=True)
class EmbeddingCase:
    """An embedding and the shape of its ids."""

    vocabulary: int
    width: int
    shape: tuple[int, ...]
    sharing: str

    def statistics(self, native: bool) -> EmbeddingStatistics:
        """The operator."""
        options = StatisticsOptions(sharing=self.sharing, mean_reduction=True, gradient_scale=1.0)
        operators = EmbeddingOperators(bias=False, vocabulary=self.vocabulary)
        return EmbeddingStatistics(operators, options, native=native)

    def staged(self) -> list[tuple[int, ...]]:
        """Shapes of the two staged arrays."""
        return [(self.vocabulary,), (self.width, self.width)]

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Ids and the gradient of the embedded ids."""
        ids = rng.integers(0, self.vocabulary, self.shape).astype(np.int32)
        return Tensor(ids), Tensor(rng.standard_normal((*self.shape, self.width), dtype=np.float32))


CASES: dict[str, NormalizationCase | EmbeddingCase] = {
    "ResNet-20 layer1, BatchNorm": NormalizationCase(batch_norm(16), (128, 16, 32, 32)),
    "ResNet-20 layer2, BatchNorm": NormalizationCase(batch_norm(32), (128, 32, 16, 16)),
    "ResNet-20 layer3, BatchNorm": NormalizationCase(batch_norm(64), (128, 64, 8, 8)),
    "ResNet-50 layer4, BatchNorm": NormalizationCase(batch_norm(2048), (16, 2048, 7, 7)),
    "dense, BatchNorm": NormalizationCase(batch_norm(1000), (500, 1000)),
    "GroupNorm of 8 groups": NormalizationCase(
        GroupNormOperators(bias=True, epsilon=1e-5, shape=(64,), channel_groups=8), (32, 64, 32, 32)
    ),
    "GPT, LayerNorm": NormalizationCase(layer_norm(192), (16, 128, 192)),
    "ViT-Base, LayerNorm": NormalizationCase(layer_norm(768), (8, 197, 768)),
    "GPT on bytes, Embedding": EmbeddingCase(256, 192, (16, 128), "expand"),
    "GPT on bytes, reduce": EmbeddingCase(256, 192, (16, 128), "reduce"),
    "GPT-2, Embedding": EmbeddingCase(50257, 768, (4, 1024), "expand"),
    "GPT-2, reduce": EmbeddingCase(50257, 768, (4, 1024), "reduce"),
}


class OneLayer(nn.Cell):
    """Stages one batch of one layer's statistics."""

    def __init__(self, case: NormalizationCase | EmbeddingCase, native: bool) -> None:
        super().__init__()
        self.statistics = case.statistics(native)
        if self.statistics.native != native:
            raise RuntimeError(f"no native kernel is available:\n{status()}")
        record = np.zeros(STAGED_WEIGHTS + self.statistics.weights, np.float32)
        record[PERIOD] = 1
        first, second = case.staged()
        self.gate = self.parameter("gate", np.int32(EVERYTHING))
        self.first = self.parameter("first", np.zeros(first, np.float32))
        self.second = self.parameter("second", np.zeros(second, np.float32))
        self.record = self.parameter("record", record)

    def parameter(self, name: str, value: Any) -> Parameter:
        """A Parameter without gradient."""
        return Parameter(Tensor(value), name=name, requires_grad=False)

    def construct(self, x: Tensor, dout: Tensor) -> Tensor:
        """Computes the statistics; reading the returned record waits for them."""
        self.statistics(x, dout, self.gate, self.first, self.second, self.record)
        return self.record + 0.0


def measure(case: NormalizationCase | EmbeddingCase, rounds: int) -> dict[str, list[float]]:
    """Times both forms on one batch of random numbers.

    Args:
        case: the layer.
        rounds: timed calls of each form.

    Returns:
        Quartiles of the milliseconds of both forms, and of their ratios.
    """
    x, dout = case.batch(np.random.default_rng(0))
    forms = {"native": OneLayer(case, True), "fallback": OneLayer(case, False)}
    times = times_in_turn(forms, x, dout, rounds)
    ratios = [fallback / native for fallback, native in zip(times["fallback"], times["native"])]
    return {**{name: quartiles(found) for name, found in times.items()}, "ratio": quartiles(ratios)}


def main() -> None:
    """Measures all layers, and prints and writes a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layer_statistics",
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
    for name, case in CASES.items():
        found = measure(case, arguments.rounds)
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
