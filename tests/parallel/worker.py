"""One rank: trains the cases named on the command line on its rows of each global batch.

Usage: python -m tests.parallel.worker FOLDER CASE...
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.communication import get_group_size, get_rank, init

import ms_kfac
from tests.parallel.cases import CASES, Case, Net, global_batches

LEARNING_RATE = 0.05


def train(case: Case, rank: int, size: int) -> tuple[Net, nn.Optimizer]:
    """Takes the steps of a case on this rank's rows."""
    ms.set_context(mode=ms.PYNATIVE_MODE if case.pynative else ms.GRAPH_MODE)
    ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=case.means)
    ms.set_seed(5)
    net = Net()
    optimizer = case.method(net, LEARNING_RATE, reduction=case.reduction, **case.options())
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction=case.reduction)
    step = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, loss), optimizer)
    step.set_train()
    for x, y in global_batches(case.steps):
        step(ms.Tensor(x[rank::size]), ms.Tensor(y[rank::size]))
    return net, optimizer


def main() -> None:
    """Trains and writes the weights, one file a case and rank."""
    folder = Path(sys.argv[1])
    ms.set_device("CPU")
    init()
    rank, size = get_rank(), get_group_size()
    for name in sys.argv[2:]:
        begin = time.time()
        net, optimizer = train(CASES[name], rank, size)
        weights = {p.name: p.asnumpy() for p in net.trainable_params()}
        np.savez(folder / f"{name}.{rank}.npz", **weights)
        shown = {"summary": optimizer.summary(), "refreshes": optimizer.refreshes()}
        (folder / f"{name}.{rank}.json").write_text(json.dumps(shown))
        print(f"{name}: {time.time() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    main()
