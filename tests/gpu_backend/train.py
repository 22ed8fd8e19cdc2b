"""The training runs on the stand-in for a GPU, in sink mode and in PyNative mode."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import nn

import ms_kfac
from ms_kfac.kernels import native_library
from ms_kfac.kernels.operator import is_native
from ms_kfac.kernels.registry import REGISTRY
from ms_kfac.ops.step import momentum_step
from ms_kfac.optim import base, first_order
from ms_kfac.parallel import Distribution, collectives
from ms_kfac.parallel.distribution import World
from ms_kfac.refresh.inverse_schedule import InverseSchedule
from ms_kfac.statistics.verification import Verification
from tests.support.loops import as_dataset, cross_entropy, functional_step
from tests.support.methods import INTERVALS, METHODS
from tests.support.networks import CLASSES, SmallNet, batches

# In the package, its name is that of its function.
LIBRARY = import_module("ms_kfac.kernels.library")
STEPS = 4


class Words(nn.Cell):
    """An embedding, a layer norm and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.norm = nn.LayerNorm((6,))
        self.head = nn.Dense(6, 5)

    def construct(self, ids: ms.Tensor) -> ms.Tensor:
        return self.head(self.norm(self.table(ids)).mean(1))


class Inverting(SmallNet):
    """A network with an operator that MindSpore implements only for other devices."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        y = super().construct(x)
        return y + ms.mint.inverse(y[:CLASSES]).sum()


def groups(net: nn.Cell) -> dict[str, Any]:
    """Parameter groups with their own learning rate, weight decay and gradient centralization, and AdamW."""
    convolutions = [p for p in net.trainable_params() if "conv" in p.name and p.ndim > 1]
    others = [p for p in net.trainable_params() if not any(p is c for c in convolutions)]
    parts = [
        {"params": convolutions, "lr": 0.01, "weight_decay": 0.1, "grad_centralization": True},
        {"params": others},
    ]
    return {"params": parts, "first_order": "adam"}


OPTIONS: dict[str, dict[str, Any]] = {
    "sampled": {"fisher": "sampled"},
    "Levenberg-Marquardt": {"damping": ms_kfac.LevenbergMarquardt(1.0, interval=2)},
    "sum": {
        **{"reduction": "sum", "sharing": "reduce", "kl_clip": None, "averaging": 0.9, "nesterov": True},
        **{"weight_decay": 0.1, "decoupled_weight_decay": True},
    },
    "unit-wise": {"normalization": "unit_wise"},
    "policies": {
        "factor_interval": ms_kfac.StaleStatistics(1e6),
        "inverse_interval": ms_kfac.TraceChange(0.01, 0.001),
    },
}
DISTRIBUTIONS = {
    "ranks": Distribution(collective="reduce_scatter"),
    "ranks, gradients": Distribution(exchange="gradients", collective="all_reduce"),
}


# Arguments of each case's ms_kfac.Model.
MODELS: dict[str, dict[str, Any]] = {
    "accumulation": {"accumulation_steps": 2},
    "loss scale": {"amp_level": "O2"},
    "loss scale and accumulation": {
        "accumulation_steps": 2,
        "amp_level": "O3",
        "loss_scale_manager": ms.DynamicLossScaleManager(),
    },
}
CASES = (*METHODS, *OPTIONS, *MODELS, "groups", "words", *DISTRIBUTIONS)


class Twice(nn.Cell):
    """The result of an all-gather over two ranks with the same vector."""

    def construct(self, vector: ms.Tensor) -> ms.Tensor:
        return ms.ops.concat((vector, vector))


class FirstHalf(nn.Cell):
    """The result of a reduce-scatter on the first of two ranks, if the other one holds zeros."""

    def construct(self, vector: ms.Tensor) -> ms.Tensor:
        return vector[: vector.shape[0] // 2]


def be_one_of_two_ranks() -> None:
    """Patches ms_kfac to run as rank 0 of 2. Collectives, which need other processes, are replaced."""
    base.find_world = lambda distribution: World(0, 2, True)
    base.warn_of_different_weights = lambda parameters, size: None
    collectives.all_reduce = nn.Identity
    collectives.all_gather = Twice
    collectives.reduce_scatter = FirstHalf


def use_operators_of(built: Path) -> None:
    """Patches ms_kfac to load emulated CUDA operators as the library of the GPU."""
    folder = built.parent / "as_package"
    folder.mkdir(exist_ok=True)
    if not (folder / "_cuda.so").exists():
        (folder / "_cuda.so").symlink_to(built)
    LIBRARY.FOLDER = folder
    # It was built from the current sources, but does not say so.
    native_library._sources_of = native_library.expected_fingerprint = lambda of: ""


def always(scale: ms.Tensor) -> bool:
    """Every step is taken."""
    return True


def decide_without_floats() -> None:
    """Patches what the host decides from floats, which the stand-in does not compute.

    Every layer counts as having statistics. Otherwise refreshes would be due at random steps. Of a batch's
    measurements only NaN and Inf are judged, since random numbers are none that a step could measure.
    """
    watch = InverseSchedule.watch

    def watch_integers(schedule: InverseSchedule, counts: Sequence[ms.Parameter]) -> None:
        ones = [np.ones(count.shape, np.int32) for count in counts]
        watch(schedule, [ms.Parameter(ms.Tensor(one), name=f"counts.{i}") for i, one in enumerate(ones)])

    InverseSchedule.watch = watch_integers
    momentum_step.is_taken = first_order.is_taken = always
    Verification._verify = lambda judge, numbers, answers: None


def create(case: str) -> tuple[nn.Cell, Any, list[Any]]:
    """Creates a network, its optimizer and the batches of one epoch."""
    data: list[Any] = batches(STEPS)
    if case == "words":
        net = Words()
        rng = np.random.default_rng(0)
        data = [(rng.integers(0, 7, (8, 3)).astype(np.int32), labels) for _, labels in data]
        return net, ms_kfac.KFAC(net, 0.05, normalization="unit_wise", **INTERVALS), data
    if case in DISTRIBUTIONS:
        be_one_of_two_ranks()
        OPTIONS[case] = {"distribution": DISTRIBUTIONS[case], "normalization": "unit_wise"}
    net = Inverting() if case == "no kernel" else SmallNet()
    if case in METHODS:
        method, options = METHODS[case]
        return net, method(net, 0.05, **options), data
    options = groups(net) if case == "groups" else OPTIONS.get(case, {})
    options["accumulation_steps"] = MODELS.get(case, {}).get("accumulation_steps", 1)
    return net, ms_kfac.KFAC(net, 0.05, **{**INTERVALS, **options}), data


class Reads(ms.train.Callback):
    """Counts the reads of device memory by the host in the steps of an epoch."""

    def __init__(self, read: Callable[[], tuple[int, int]]) -> None:
        self.read = read
        self.before = self.of_epoch = (0, 0)

    def on_train_epoch_begin(self, run_context: Any) -> None:
        self.before = self.read()

    def on_train_step_end(self, run_context: Any) -> None:
        now = self.read()
        self.of_epoch = (now[0] - self.before[0], now[1] - self.before[1])


def train(case: str, way: str, read: Callable[[], tuple[int, int]]) -> dict[str, Any]:
    """Trains two epochs and counts the reads of the second one.

    Args:
        case: one of `CASES`.
        way: "sink" for `ms_kfac.Model` with `dataset_sink_mode=True`, or "pynative" for a loop.
        read: returns the number of reads and of bytes read by the host so far.

    Returns:
        The numbers of steps, preconditioned layers and refreshes, the reads per step, the native operators
        and their last error, and the weights of the layers' statistics.
    """
    ms.set_device("GPU")
    ms.set_context(mode=ms.GRAPH_MODE if way == "sink" else ms.PYNATIVE_MODE)
    decide_without_floats()
    net, optimizer, data = create(case)
    loss = cross_entropy("sum" if case == "sum" else "mean")
    reads = Reads(read)
    if way == "sink":
        model = ms_kfac.Model(net, loss, optimizer, **MODELS.get(case, {}))
        model.train(2, as_dataset(data), callbacks=[reads], dataset_sink_mode=True)
    else:
        net.set_train()
        step = functional_step(net, optimizer, loss)
        for _ in range(2):
            reads.on_train_epoch_begin(None)
            for x, y in data:
                step(ms.Tensor(x), ms.Tensor(y))
            ms.runtime.synchronize()
            reads.on_train_step_end(None)
    count, size = reads.of_epoch
    return {
        "steps": int(optimizer.global_step.asnumpy()[0]),
        "reads_a_step": count / STEPS,
        "bytes_a_step": size / STEPS,
        "layers": len(optimizer.layers),
        # Not `refreshes()`, which also reads a count of floats that the stand-in does not compute.
        "statistics": int(optimizer.statistics_schedule.refreshes.asnumpy()),
        "inverses": int(optimizer.inverse_schedule.refreshes.asnumpy()),
        "native": sorted(filter(is_native, REGISTRY)),
        "last_error": LIBRARY.library("GPU").last_error(),
        "weights": [float(weight) for block in optimizer.blocks for weight in block.weights.asnumpy()],
    }
