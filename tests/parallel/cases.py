"""What the ranks of a test run: a small net, a global batch a step, and a number of optimizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

import ms_kfac
from ms_kfac.curvature import DiagonalBlock
from ms_kfac.parallel import Distribution
from tests.support.methods import fixed_intervals

CLASSES = 3
BATCH = 8


class Net(nn.Cell):
    """A convolution, two dense layers and a lone Parameter: a rank's batch changes its gradients alone."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(3)

        def weight(*shape: int) -> ms.Tensor:
            return ms.Tensor(0.3 * rng.standard_normal(shape), ms.float32)

        self.conv = nn.Conv2d(2, 3, 3, pad_mode="same", has_bias=True, weight_init=weight(3, 2, 3, 3))
        self.hidden = nn.Dense(3 * 4 * 4, 7, weight_init=weight(7, 48))
        self.head = nn.Dense(7, CLASSES, weight_init=weight(CLASSES, 7))
        self.shift = ms.Parameter(weight(7), name="shift")
        self.flatten = nn.Flatten()
        self.activation = nn.Tanh()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        x = self.flatten(self.activation(self.conv(x)))
        return self.head(self.activation(self.hidden(x) + self.shift))


def global_batches(steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """What all ranks together see, a pair of images and labels a step."""
    rng = np.random.default_rng(11)
    return [
        (
            rng.standard_normal((BATCH, 2, 4, 4)).astype(np.float32),
            rng.integers(0, CLASSES, BATCH).astype(np.int32),
        )
        for _ in range(steps)
    ]


@dataclass(frozen=True)
class Case:
    """One optimizer on the net.

    Attributes:
        method: the optimizer's class.
        steps: how many to take.
        options: its options, made anew for each use.
        reduction: of the loss.
        own_loop: whether to train in PyNative mode by a loop that averages gradients itself, with MindSpore's
            parallel mode left as it is.
        means: what `gradients_mean` is set to.
        same_rows: whether all ranks see the whole batch.
        synchronizes: whether ranks make their states equal after half of the steps.
        scatters: whether to act as if the CPU had a ReduceScatter.
        overflows: whether the loss scale adapts, and the first row of the second batch is infinite.
    """

    method: Any
    steps: int
    options: Callable[[], dict[str, Any]] = field(default=dict)
    reduction: str = "mean"
    own_loop: bool = False
    means: bool = True
    same_rows: bool = False
    synchronizes: bool = False
    scatters: bool = False
    overflows: bool = False


INTERVALS = fixed_intervals(1, 3)


def _options(**options: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"damping": 0.05, **INTERVALS, **options}


GRADIENTS = Distribution(exchange="gradients")
# Of the shift, which no layer has.
OTHERS = {"other": DiagonalBlock}
SCATTERED = Distribution(collective="reduce_scatter")
LONG = {
    "KFAC": Case(ms_kfac.KFAC, 50, _options()),
    # A trust region that binds, so that the inner products are seen.
    "KFAC gradients": Case(
        ms_kfac.KFAC, 50, _options(distribution=GRADIENTS, kl_clip=1e-4), synchronizes=True
    ),
}
SHORT = {
    "reduce_scatter": Case(ms_kfac.KFAC, 8, _options(distribution=SCATTERED), scatters=True),
    "TKFAC automatic": Case(ms_kfac.TKFAC, 5, _options(damping_mode="automatic")),
    # Refreshes at steps 0 (full), 2 (rank one), 4 (full, from sums that began anew), 6.
    "SMKFAC": Case(
        ms_kfac.SMKFAC,
        7,
        _options(full_refreshes=1, full_refresh_interval=1, rescale="trace", **fixed_intervals(1, 2)),
    ),
    # The hidden layer's factor has fewer samples than dimensions: rounding would choose its basis.
    "EKFAC": Case(ms_kfac.EKFAC, 6, _options(skip=("hidden",))),
    "SPNGD": Case(ms_kfac.SPNGD, 6, lambda: {"damping": 0.05, "similarity": 1.0}),
    # The shift, which no layer has, by AdamW.
    "THOR": Case(ms_kfac.THOR, 5, _options(split=4, first_order="adam")),
    # A trust region that binds would undo a wrong scale of all gradients.
    "sum": Case(ms_kfac.KFAC, 4, _options(kl_clip=None, blocks=OTHERS), reduction="sum", means=False),
    "LevenbergMarquardt": Case(
        ms_kfac.KFAC, 6, lambda: {"damping": ms_kfac.LevenbergMarquardt(0.05, interval=2), **INTERVALS}
    ),
    # What the other rank has done in that step has to be undone as well.
    "overflow": Case(ms_kfac.KFAC, 5, _options(), overflows=True),
    "own loop": Case(ms_kfac.KFAC, 4, _options(distribution=Distribution(), blocks=OTHERS), own_loop=True),
}
# Two steps: a refresh, after which all ranks have the same, and statistics of their own.
DRAWN = {"sampled": Case(ms_kfac.KFAC, 2, _options(fisher="sampled"), same_rows=True)}
CASES = {**LONG, **SHORT, **DRAWN}
