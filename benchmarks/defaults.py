"""Short runs of every method with its defaults, and of ``nn.Momentum`` at the best rate of a grid.

    python -m benchmarks.defaults --data-dir DIR
    python -m benchmarks.defaults --data-dir DIR --methods KFAC --dampings 0.003,0.01 --kl-clips 0.001,none
    python -m benchmarks.defaults --task digits

Tasks: ``lenet`` (LeNet-5 on 10,000 images of MNIST, batch 100), ``digits`` (ResNet-20 on scikit-learn's
digits, batch 32), ``convnet`` (the zoo's, on 10,000 images of CIFAR-10, batch 100) and
``autoencoder`` (the zoo's auto-encoder on 10,000 images of MNIST, batch 100). A line holds the test metric,
accuracy or squared reconstruction error, after epochs 1 and 2 (``digits``: 2 and 4): the mean over the seeds,
and the value of each seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model_zoo.common.environment import limit_onednn

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import nn  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

import ms_kfac  # noqa: E402
from benchmarks.machine import describe_run  # noqa: E402
from model_zoo.common.data import cifar10, digits, mnist  # noqa: E402
from model_zoo.common.data.splits import DataSet  # noqa: E402
from model_zoo.common.losses import ClassificationLoss, ReconstructionLoss  # noqa: E402
from model_zoo.common.networks import create_network  # noqa: E402

METHODS = ("KFAC", "TKFAC", "SMKFAC", "SKFAC", "EKFAC", "SPNGD", "THOR")
MOMENTUM_RATES = (0.003, 0.01, 0.03, 0.1)
TRAINING_IMAGES = 10_000

Arrays = tuple[NDArray[Any], NDArray[Any]]


class LeNet5(nn.SequentialCell):
    """LeNet-5 for 28x28 images, with ReLU and max pooling, and MindSpore's default initialization."""

    def __init__(self) -> None:
        """Builds the layers."""
        super().__init__(
            nn.Conv2d(1, 6, 5, pad_mode="pad", padding=2, has_bias=True),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(6, 16, 5, pad_mode="valid", has_bias=True),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Flatten(),
            nn.Dense(400, 120, activation="relu"),
            nn.Dense(120, 84, activation="relu"),
            nn.Dense(84, 10),
        )


@dataclass(frozen=True)
class Task:
    """A network, its data and its batch size.

    Attributes:
        network: creates the network.
        load: reads the data set from a folder.
        batch_size: images per batch.
        evaluated: epochs after which the network is evaluated.
        momentum_rates: the grid of ``nn.Momentum``.
        reconstructs: whether the pixels are the targets and the metric is an error.
    """

    network: Callable[[], nn.Cell]
    load: Callable[[Path | None], DataSet]
    batch_size: int = 100
    evaluated: tuple[int, ...] = (1, 2)
    momentum_rates: tuple[float, ...] = MOMENTUM_RATES
    reconstructs: bool = False


def _mnist(data_dir: Path | None) -> DataSet:
    return mnist.load(data_dir, side=28)


TASKS = {
    "lenet": Task(LeNet5, _mnist),
    "digits": Task(lambda: create_network("resnet20"), lambda data_dir: digits.load(), 32, (2, 4)),
    "convnet": Task(lambda: create_network("convnet"), cifar10.load),
    # A loss summed over 784 pixels needs smaller rates.
    "autoencoder": Task(
        lambda: create_network("autoencoder", nonlinearity="tanh"),
        _mnist,
        momentum_rates=(0.0003, 0.001, 0.003, 0.01),
        reconstructs=True,
    ),
}


@dataclass(frozen=True)
class Contender:
    """An optimizer and its non-default options.

    Attributes:
        method: name of its class.
        rate: the learning rate.
        options: the other options.
    """

    method: str
    rate: float
    options: tuple[tuple[str, Any], ...] = ()

    def create(self, network: nn.Cell) -> nn.Optimizer:
        """Creates the optimizer of a network."""
        if self.method == "Momentum":
            return nn.Momentum(network.trainable_params(), self.rate, 0.9)
        optimizer: nn.Optimizer = getattr(ms_kfac, self.method)(network, self.rate, **dict(self.options))
        return optimizer

    def __str__(self) -> str:
        """A label such as "KFAC 0.03 damping=0.01"."""
        return " ".join([f"{self.method} {self.rate:g}", *(f"{key}={value}" for key, value in self.options)])


def arrays(task: Task, data: DataSet) -> tuple[Arrays, Arrays]:
    """Inputs and targets for training and testing."""
    pairs = []
    for split in (data.train, data.test):
        images, labels = split.images[:TRAINING_IMAGES], split.labels[:TRAINING_IMAGES]
        if task.reconstructs:
            pixels = images.reshape(len(images), -1).astype(np.float32) / 255
            pairs.append((pixels, pixels))
            continue
        images = images if images.ndim == 4 else images[..., None]
        inputs = (images.astype(np.float32) - np.float32(data.mean)) / np.float32(data.deviation)
        pairs.append((np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)), labels.astype(np.int32)))
    return pairs[0], pairs[1]


def evaluate(task: Task, network: nn.Cell, test: Arrays) -> float:
    """The metric on the test images."""
    network.set_train(False)
    total = 0.0
    size = next(size for size in (500, 180, 1) if len(test[0]) % size == 0)
    for start in range(0, len(test[0]), size):
        targets = test[1][start : start + size]
        outputs = network(ms.Tensor(test[0][start : start + size])).asnumpy()
        if task.reconstructs:
            total += float(np.square(1 / (1 + np.exp(-outputs)) - targets).sum())
        else:
            total += float((outputs.argmax(1) == targets).sum())
    network.set_train(True)
    return total / len(test[0])


def train(task: Task, contender: Contender, seed: int, train_on: Arrays, test: Arrays) -> list[float]:
    """Trains a network.

    Args:
        task: the task.
        contender: the optimizer.
        seed: seed of the weights and of the order of the batches, the same for all optimizers.
        train_on: training inputs and targets.
        test: test inputs and targets.

    Returns:
        The metric after each of the task's evaluated epochs.
    """
    ms.set_seed(seed)
    rng = np.random.default_rng(seed)
    network = task.network()
    loss = ReconstructionLoss() if task.reconstructs else ClassificationLoss()
    step = nn.TrainOneStepCell(nn.WithLossCell(network, loss), contender.create(network))
    step.set_train()
    found = []
    for epoch in range(1, max(task.evaluated) + 1):
        order = rng.permutation(len(train_on[0]))
        for start in range(0, len(order) - task.batch_size + 1, task.batch_size):
            batch = order[start : start + task.batch_size]
            step(ms.Tensor(train_on[0][batch]), ms.Tensor(train_on[1][batch]))
        if epoch in task.evaluated:
            found.append(evaluate(task, network, test))
    return found


def _numbers(text: str) -> list[float | None]:
    return [None if item == "none" else float(item) for item in text.split(",")]


def contenders(arguments: argparse.Namespace) -> Iterator[Contender]:
    """``nn.Momentum`` over its grid, and the methods over the product of the given options."""
    if not arguments.without_momentum:
        for rate in TASKS[arguments.task].momentum_rates:
            yield Contender("Momentum", rate)
    given = {"damping": arguments.dampings, "kl_clip": arguments.kl_clips}
    tried = [[(name, value) for value in values] for name, values in given.items() if values is not None]
    for method in arguments.methods.split(","):
        for rate in arguments.rates:
            for options in itertools.product(*tried):
                yield Contender(method, rate, options)


def main() -> None:
    """Trains all contenders, prints one line each and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default="lenet")
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST or CIFAR-10")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rates", type=_numbers, default=[0.03], help="learning rates of the methods")
    parser.add_argument("--dampings", type=_numbers, help="instead of the default")
    parser.add_argument("--kl-clips", type=_numbers, help="instead of the default; none disables it")
    parser.add_argument("--without-momentum", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write a text file and a JSON file of this name")
    arguments = parser.parse_args()
    task = TASKS[arguments.task]
    ms.set_context(mode=ms.GRAPH_MODE)
    data = task.load(arguments.data_dir)
    train_on, test = arrays(task, data)
    figure = "squared reconstruction error" if task.reconstructs else "test accuracy"
    run = {**describe_run(), "arguments": sys.argv[1:]}
    machine = run["machine"]
    lines = [
        f"{arguments.task}: {figure} after epochs {' and '.join(map(str, task.evaluated))}, mean of "
        f"{arguments.seeds} seeds (each seed)",
        f"commit {run['commit']}, {run['date']}, {machine['processor']}, {machine['cpus']} cores",
    ]
    print(*lines, sep="\n", flush=True)
    results: dict[str, list[list[float]]] = {}
    for contender in contenders(arguments):
        started = time.perf_counter()
        found = [train(task, contender, seed, train_on, test) for seed in range(1, arguments.seeds + 1)]
        results[str(contender)] = found
        cells = []
        for values in zip(*found):
            cells.append(f"{np.mean(values):.4f} ({' '.join(f'{value:.4f}' for value in values)})")
        lines.append(f"{contender!s:44} {'  '.join(cells)}  {time.perf_counter() - started:.0f} s")
        print(lines[-1], flush=True)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.with_suffix(".txt").write_text("\n".join(lines) + "\n")
        text = json.dumps({**run, "figure": figure, "epochs": task.evaluated, "runs": results}, indent=2)
        arguments.output.with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
