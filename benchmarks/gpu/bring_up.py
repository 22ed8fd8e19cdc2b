"""Starts MindSpore on a GPU, and provides the networks and batches of the parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

import ms_kfac
from benchmarks.gpu import numpy2
from benchmarks.gpu.record import Record
from model_zoo.common.networks import create_network
from model_zoo.resnet.imagenet import ImageNetResNet

BATCHES = 4


@dataclass(frozen=True)
class Task:
    """A network and the shape of its batches.

    Attributes:
        build: creates the network.
        images: shape of a batch.
        classes: number of classes.
    """

    build: Callable[[], nn.Cell]
    images: tuple[int, int, int, int]
    classes: int

    def batches(self, count: int = BATCHES) -> list[tuple[np.ndarray, np.ndarray]]:
        """Random images and labels: the time of a step does not depend on their values."""
        rng = np.random.default_rng(7)
        return [
            (
                rng.standard_normal(self.images, dtype=np.float32),
                rng.integers(0, self.classes, self.images[0]).astype(np.int32),
            )
            for _ in range(count)
        ]


TASKS = {
    "resnet20": Task(lambda: create_network("resnet", depth=20), (128, 3, 32, 32), 10),
    "resnet50": Task(ImageNetResNet, (32, 3, 224, 224), 1000),
}
SMALL_TASKS = {
    "resnet20": Task(lambda: create_network("resnet", depth=8), (4, 3, 32, 32), 10),
    "resnet50": Task(lambda: ImageNetResNet(width=8, blocks=(1, 1, 1, 1), classes=10), (2, 3, 32, 32), 10),
}


def start(record: Record) -> None:
    """Selects the device and graph mode, and records the environment.

    Args:
        record: the record to write to.
    """
    began = time.monotonic()
    device = "CPU" if record.dry_run else "GPU"
    ms.set_device(device)
    ms.set_context(mode=ms.GRAPH_MODE)
    first_scalar = numpy2.adapt()
    total = float((ms.Tensor(np.ones(2, np.float32)) * 0.5).asnumpy().sum())
    record.add(
        "mindspore",
        version=ms.__version__,
        ms_kfac=ms_kfac.__version__,
        device=ms.get_context("device_target"),
        numpy=np.__version__,
        first_scalar=first_scalar,
        two_halves=total,
        native=os.environ.get("MS_KFAC_NATIVE", ""),
        kernels=ms_kfac.kernels.status().splitlines(),
        seconds=round(time.monotonic() - began, 1),
    )


def seconds_of_step(step: nn.Cell, turns: Iterator[tuple[Any, Any]]) -> float:
    """Takes one step, waits for the loss, and returns the seconds; FloatingPointError if it is not finite."""
    images, labels = next(turns)
    began = time.perf_counter()
    loss = step(images, labels).asnumpy()
    seconds = time.perf_counter() - began
    if not np.isfinite(loss).all():
        raise FloatingPointError(f"the loss of a step must be finite, got {loss}")
    return seconds


def in_turn(batches: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[ms.Tensor, ms.Tensor]]:
    """The batches as tensors, repeated forever."""
    tensors = [(ms.Tensor(images), ms.Tensor(labels)) for images, labels in batches]
    while True:
        yield from tensors
