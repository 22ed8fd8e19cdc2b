"""Checks that ``Model.train`` has the same losses and refreshes with and without data sinking.

It runs twice without sinking, which shows the difference between two equal runs.
"""

from __future__ import annotations

import time
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindspore import nn

import ms_kfac
from benchmarks.gpu.bring_up import SMALL_TASKS, TASKS, Task, start
from benchmarks.gpu.record import Record, part_parser

STEPS = 20
REPEATED = "without sink, again"
# One rounding to TF32, in which cuDNN may compute: what another order of the same sums can change.
EXPLAINED = 2.0**-10
INTERVALS = {"factor_interval": ms_kfac.FixedInterval(2), "inverse_interval": ms_kfac.FixedInterval(5)}


class Losses(ms.train.Callback):
    """Stores the loss and the time of every step that the model counts."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.times: list[float] = []

    def on_train_step_end(self, run_context: Any) -> None:
        """Reads the loss."""
        self.losses.append(float(np.asarray(run_context.original_args().net_outputs.asnumpy()).mean()))
        self.times.append(time.perf_counter())


def train(task: Task, steps: int, *, sink: bool, sink_size: int) -> dict[str, Any]:
    """Trains from the same weights on the same batches.

    Args:
        task: the network and its batches.
        steps: number of batches.
        sink: whether to use data sinking.
        sink_size: batches per sink; -1 for all.

    Returns:
        Losses, refreshes, a sum of the weights, and seconds.
    """
    ms.set_seed(1)
    network = task.build()
    optimizer = ms_kfac.KFAC(network, 0.01, damping=0.1, **INTERVALS)
    batches = task.batches(steps)
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    dataset = ds.NumpySlicesDataset({"image": images, "label": labels}, shuffle=False)
    dataset = dataset.batch(task.images[0], drop_remainder=True)
    model = ms.train.Model(network, nn.CrossEntropyLoss(), optimizer)
    losses = Losses()
    began = time.perf_counter()
    # An epoch is one sink; the CPU, which has no data sinking, would run a whole pass for it.
    epochs = steps if sink_size == 1 and ms.get_context("device_target") != "CPU" else 1
    model.train(epochs, dataset, callbacks=[losses], dataset_sink_mode=sink, sink_size=sink_size)
    seconds = time.perf_counter() - began
    return {
        "losses": losses.losses,
        "seconds_between_steps": np.diff(losses.times).tolist(),
        "refreshes": str(optimizer.refreshes()),
        "weights": float(sum(np.abs(p.asnumpy()).sum(dtype=np.float64) for p in network.trainable_params())),
        "seconds": seconds,
    }


def main() -> None:
    """Runs all four variants and compares them."""
    arguments = part_parser(__doc__).parse_args()
    end = time.monotonic() + arguments.seconds
    record = Record(arguments.record, dry_run=arguments.dry_run)
    start(record)
    task = (SMALL_TASKS if arguments.dry_run else TASKS)["resnet20"]
    steps = 6 if arguments.dry_run else STEPS
    runs = {
        "without sink": (False, -1),
        "sink of one": (True, 1),
        REPEATED: (False, -1),
        "sink of all": (True, -1),
    }
    found: dict[str, dict[str, Any]] = {}
    for name, (sink, sink_size) in runs.items():
        if time.monotonic() > end:
            record.fail(name, "no time was left")
            break
        with record.attempt(name):
            found[name] = train(task, steps, sink=sink, sink_size=sink_size)
            record.add("training", run=name, **found[name])
    compare(record, found)


def compare(record: Record, found: dict[str, dict[str, Any]]) -> None:
    """Compares the runs with the one without sinking, and fails those that differ by more than equal runs.

    Args:
        record: the record to write to.
        found: the results of :func:`train` by run.
    """
    base, again = found.get("without sink"), found.get(REPEATED)
    if base is None:
        return
    threshold = EXPLAINED + (10 * difference_of_losses(again, base) if again else 0.0)
    for name, result in found.items():
        if result is base:
            continue
        record.check(
            f"losses, {name}",
            error=difference_of_losses(result, base),
            threshold=float("inf") if name == REPEATED else threshold,
            losses=len(result["losses"]),
            relative_difference_of_weights=abs(result["weights"] / base["weights"] - 1),
        )
        changed = float(result["refreshes"] != base["refreshes"])
        record.check(f"refreshes, {name}", error=changed, threshold=0.0)


def difference_of_losses(result: dict[str, Any], base: dict[str, Any]) -> float:
    """Largest relative difference of the losses of two runs."""
    ours, theirs = np.asarray(result["losses"]), np.asarray(base["losses"])
    if len(ours) != len(theirs):
        # Only the last loss is available if the device took all steps at once.
        ours, theirs = ours[-1:], theirs[-1:]
    return float((np.abs(ours - theirs) / np.abs(theirs)).max())


if __name__ == "__main__":
    main()
