"""Times the statistics of one layer: native kernel against the fallback, in one process.

    python benchmarks/covariance.py [--rounds 15] [--output FILE]

Covers every layer of ResNet-20 (CIFAR-10, batch 128) and some other geometries. One call computes the sums of
outer products of the layer's inputs and output gradients, in a compiled graph. Native and fallback calls
alternate within each round, so that changes of the machine's speed affect both equally.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model_zoo.common.environment import limit_onednn

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import Parameter, Tensor, nn  # noqa: E402

from benchmarks.machine import describe_run  # noqa: E402
from ms_kfac.capture.convolution import ConvolutionOperators  # noqa: E402
from ms_kfac.capture.dense import DenseOperators  # noqa: E402
from ms_kfac.kernels import status  # noqa: E402
from ms_kfac.ops.statistics.convolution_geometry import ConvolutionGeometry  # noqa: E402
from ms_kfac.ops.statistics.kronecker_statistics import KroneckerStatistics  # noqa: E402
from ms_kfac.ops.statistics.layer_statistics import EVERYTHING, PERIOD, STAGED_WEIGHTS, StatisticsOptions  # noqa: E402

WARM_UP_ROUNDS = 3


@dataclass(frozen=True)
class LayerShape:
    """A layer and its batch size; a dense layer has kernel 0 and image 0.

    Attributes:
        name: its name and its network.
        count: number of such layers in ResNet-20; 0 for layers of other networks.
        samples: batch size.
        inputs: input channels or features.
        outputs: output channels or features.
        image: height and width of the input.
        kernel: height and width of the kernel.
        stride: in both directions.
    """

    name: str
    count: int
    samples: int
    inputs: int
    outputs: int
    image: int = 0
    kernel: int = 0
    stride: int = 1

    def operators(self) -> Any:
        """The operators that turn the layer's input and output gradient into rows or columns."""
        if not self.kernel:
            return DenseOperators(bias=True)
        geometry = ConvolutionGeometry(
            kernel_size=(self.kernel,) * 2,
            stride=(self.stride,) * 2,
            dilation=(1, 1),
            pad_mode="pad",
            padding=(self.kernel // 2,) * 4,
            groups=1,
        )
        return ConvolutionOperators(bias=False, geometry=geometry)

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of the input and of the output gradient."""
        if not self.kernel:
            return (self.samples, self.inputs), (self.samples, self.outputs)
        output = -(-self.image // self.stride)
        return (
            (self.samples, self.inputs, self.image, self.image),
            (self.samples, self.outputs, output, output),
        )

    def input_dimension(self) -> int:
        """Dimension of A."""
        return self.inputs * self.kernel**2 if self.kernel else self.inputs + 1


LAYERS = (
    LayerShape("ResNet-20 conv1", 1, 128, 3, 16, 32, 3),
    LayerShape("ResNet-20 layer1", 6, 128, 16, 16, 32, 3),
    LayerShape("ResNet-20 layer2.0.conv1", 1, 128, 16, 32, 32, 3, 2),
    LayerShape("ResNet-20 layer2", 5, 128, 32, 32, 16, 3),
    LayerShape("ResNet-20 layer3.0.conv1", 1, 128, 32, 64, 16, 3, 2),
    LayerShape("ResNet-20 layer3", 5, 128, 64, 64, 8, 3),
    LayerShape("ResNet-20 fc", 1, 128, 64, 10),
    LayerShape("ResNet-20 shortcut, projected", 0, 128, 16, 32, 32, 1, 2),
    LayerShape("LeNet conv2", 0, 128, 6, 16, 14, 5),
    LayerShape("ResNet-50 conv1", 0, 4, 3, 64, 224, 7, 2),
    LayerShape("ResNet-50 layer1.conv2", 0, 8, 64, 64, 56, 3),
    LayerShape("ResNet-50 layer3.conv3", 0, 8, 256, 1024, 14, 1),
    LayerShape("dense 784 to 1000", 0, 500, 784, 1000),
)


class OneLayer(nn.Cell):
    """Stages one batch of one layer's statistics."""

    def __init__(self, layer: LayerShape, native: bool) -> None:
        super().__init__()
        options = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1.0)
        self.statistics = KroneckerStatistics(layer.operators(), options, native=native)
        if self.statistics.native != native:
            raise RuntimeError(f"no native kernel is available:\n{status()}")
        d, e = layer.input_dimension(), layer.outputs
        self.gate = self.parameter("gate", np.int32(EVERYTHING))
        self.A = self.parameter("A", np.zeros((d, d), np.float32))
        self.G = self.parameter("G", np.zeros((e, e), np.float32))
        record = np.zeros(STAGED_WEIGHTS + 2, np.float32)
        record[PERIOD] = 1
        self.record = self.parameter("record", record)

    def parameter(self, name: str, value: Any) -> Parameter:
        """A Parameter without gradient."""
        return Parameter(Tensor(value), name=name, requires_grad=False)

    def construct(self, x: Tensor, dout: Tensor) -> Tensor:
        """Computes the statistics; reading the returned record waits for them."""
        self.statistics(x, dout, self.gate, self.A, self.G, self.record)
        return self.record + 0.0


def milliseconds(call: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [round(float(value), 4) for value in np.percentile(values, [25, 50, 75])]


def times_in_turn(
    forms: Mapping[str, nn.Cell], x: Tensor, dout: Tensor, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of the timed calls of each form; the forms take turns."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(WARM_UP_ROUNDS + rounds):
        for name, form in forms.items():
            spent = milliseconds(lambda form=form: form(x, dout).asnumpy())
            if turn >= WARM_UP_ROUNDS:
                times[name].append(spent)
    return times


def measure(layer: LayerShape, rounds: int) -> dict[str, Any]:
    """Times both forms on one batch of normal random numbers."""
    rng = np.random.default_rng(0)
    x, dout = (Tensor(rng.standard_normal(shape, dtype=np.float32)) for shape in layer.shapes())
    forms = {"native": OneLayer(layer, True), "fallback": OneLayer(layer, False)}
    times = times_in_turn(forms, x, dout, rounds)
    a, b = (form.A.asnumpy() for form in forms.values())
    ratios = [fallback / native for fallback, native in zip(times["fallback"], times["native"])]
    return {
        "layer": layer.name,
        "count": layer.count,
        "x": list(layer.shapes()[0]),
        "dout": list(layer.shapes()[1]),
        "kernel": layer.kernel,
        "stride": layer.stride,
        "native_ms": quartiles(times["native"]),
        "fallback_ms": quartiles(times["fallback"]),
        "ratio": quartiles(ratios),
        "difference": float(np.abs(a - b).max() / np.abs(b).max()),
    }


def main() -> None:
    """Measures all layers, prints a table and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--only", default="", help="measure only layers whose name contains this")
    arguments = parser.parse_args()
    ms.set_context(mode=ms.GRAPH_MODE)
    results = []
    print(f"{'layer':<32} {'native ms':>24} {'fallback ms':>26} {'ratio':>8}")
    for layer in LAYERS:
        if arguments.only not in layer.name:
            continue
        result = measure(layer, arguments.rounds)
        results.append(result)
        native, fallback = (
            "{1:9.2f} ({0:.2f} to {2:.2f})".format(*result[key]) for key in ("native_ms", "fallback_ms")
        )
        print(f"{layer.name:<32} {native:>24} {fallback:>26} {result['ratio'][1]:8.1f}", flush=True)
    totals = {
        form: round(sum(result["count"] * result[f"{form}_ms"][1] for result in results), 2)
        for form in ("native", "fallback")
    }
    print(f"all of ResNet-20: native {totals['native']:.1f} ms, fallback {totals['fallback']:.1f} ms")
    if arguments.output:
        record = {
            **describe_run(),
            "kernels": status().splitlines()[0].rsplit(", ", 1)[-1],
            "rounds": arguments.rounds,
            "resnet20_ms": totals,
            "layers": results,
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
