"""One rank: trains the cases named on the command line on its rows of each global batch.

Usage, under msrun: worker.py FOLDER SECONDS CASE...
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindspore import nn, ops
from mindspore.communication import get_group_size, get_rank, init

import ms_kfac
from ms_kfac.parallel import average_moving_statistics, collectives
from tests.parallel.cases import CASES, Case, Net, global_batches

LEARNING_RATE = 0.05


class SliceOfAllReduce(nn.Cell):
    """What a ReduceScatter gives, by an AllReduce: MindSpore has none on CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.all_reduce = ops.AllReduce()
        self.rank, self.size = get_rank(), get_group_size()

    def construct(self, vector: ms.Tensor) -> ms.Tensor:
        length = vector.shape[0] // self.size
        return self.all_reduce(vector)[self.rank * length : (self.rank + 1) * length]


def state_of(optimizer: nn.Optimizer) -> dict[str, np.ndarray]:
    """What the optimizer keeps."""
    return {parameter.name: parameter.asnumpy().copy() for parameter in optimizer.get_parameters()}


def own_step(
    net: nn.Cell, optimizer: nn.Optimizer, loss: nn.Cell, size: int
) -> Callable[[ms.Tensor, ms.Tensor], None]:
    """A step whose gradients no cell of MindSpore's averages."""
    gradient = ms.value_and_grad(lambda x, y: loss(net(x), y), None, optimizer.parameters)
    all_reduce = ops.AllReduce()

    def step(x: ms.Tensor, y: ms.Tensor) -> None:
        _, gradients = gradient(x, y)
        optimizer(tuple(all_reduce(g) / size for g in gradients))

    return step


def train(case: Case, rank: int, size: int) -> tuple[Net, nn.Optimizer, dict[str, np.ndarray]]:
    """Takes the steps of a case on this rank's rows; also gives the state after it was made equal."""
    ms.set_context(mode=ms.PYNATIVE_MODE if case.own_loop else ms.GRAPH_MODE)
    mode = "stand_alone" if case.own_loop else "data_parallel"
    ms.set_auto_parallel_context(parallel_mode=mode, gradients_mean=case.means)
    ms.set_seed(5)
    collectives.has_reduce_scatter = lambda: case.scatters
    collectives.reduce_scatter = SliceOfAllReduce
    net = Net()
    optimizer = case.method(net, LEARNING_RATE, reduction=case.reduction, **case.options())
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction=case.reduction)
    scale = nn.DynamicLossScaleUpdateCell(2.0**8, 2, 100) if case.overflows else None
    step = own_step(net, optimizer, loss, size) if case.own_loop else None
    if step is None:
        step = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, loss), optimizer, scale_sense=scale)
        step.set_train()
    equal: dict[str, np.ndarray] = {}
    rows = slice(None) if case.same_rows else slice(rank, None, size)
    for index, (x, y) in enumerate(global_batches(case.steps)):
        if case.overflows and index == 1:
            x[0] = np.inf
        step(ms.Tensor(x[rows]), ms.Tensor(y[rows]))
        if case.synchronizes and index == case.steps // 2:
            optimizer.synchronize()
            equal = state_of(optimizer)
    return net, optimizer, equal


def averaged_moments(rank: int) -> list[list[float]]:
    """Moments of a BatchNorm that were the rank's number, after averaging."""
    norm = nn.BatchNorm2d(2)
    for moment in (norm.moving_mean, norm.moving_variance):
        ops.assign(moment, ms.Tensor([rank, 10.0 * rank], ms.float32))
    average_moving_statistics(nn.SequentialCell(norm))
    return [norm.moving_mean.asnumpy().tolist(), norm.moving_variance.asnumpy().tolist()]


def told_of_weights(rank: int) -> list[str]:
    """What is said of weights where those of the last rank alone are others'."""
    ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
    ms.set_seed(5)
    net = Net()
    if rank == get_group_size() - 1:
        ops.assign(net.head.bias, net.head.bias + 1e-3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ms_kfac.KFAC(net, LEARNING_RATE)
    return [str(warning.message) for warning in caught if "begins with other weights" in str(warning.message)]


def found_settings(rank: int, size: int) -> list[list[float]]:
    """Damping, clip and loss of each trial of a search on this rank's rows."""
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
    ms.set_seed(5)
    parts = [(x[rank::size], y[rank::size]) for x, y in global_batches(8)]
    rows = [np.concatenate(arrays) for arrays in zip(*parts)]
    found = ms_kfac.find_settings(
        lambda net, **settings: ms_kfac.KFAC(net, LEARNING_RATE, **settings),
        Net(),
        nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean"),
        ds.NumpySlicesDataset(tuple(rows), shuffle=False).batch(len(parts[0][0])),
        dampings=(1.0, 0.1),
        clip_ratios=(0.1, 0.001),
        steps=4,
    )
    return [[trial.damping, trial.kl_clip, trial.loss] for trial in found.trials]


def main() -> None:
    """Trains and writes what came out, two files a case and rank."""
    folder = Path(sys.argv[1])
    # Ends this process wherever it waits: ranks that disagree on what to exchange wait forever.
    signal.alarm(int(sys.argv[2]))
    ms.set_device("CPU")
    init()
    rank, size = get_rank(), get_group_size()
    told, found = told_of_weights(rank), found_settings(rank, size)
    for name in sys.argv[3:]:
        net, optimizer, equal = train(CASES[name], rank, size)
        arrays = {f"weights {p.name}": p.asnumpy() for p in net.trainable_params()}
        arrays.update({f"state {key}": value for key, value in state_of(optimizer).items()})
        arrays.update({f"equal {key}": value for key, value in equal.items()})
        np.savez(folder / f"{name}.{rank}.npz", **arrays)
        traffic = optimizer.traffic()
        shown: dict[str, Any] = {
            "repr": repr(optimizer),
            "summary": optimizer.summary(),
            "refreshes": optimizer.refreshes(),
            "traffic": None if traffic is None else dataclasses.asdict(traffic),
            "moments": averaged_moments(rank),
            "told": told,
            "found": found,
        }
        (folder / f"{name}.{rank}.json").write_text(json.dumps(shown))
        print(name, "is done", flush=True)


if __name__ == "__main__":
    main()
