"""A search for the damping and the KL clip by short trainings from the same weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.train.model import Model
from ms_kfac.values import check_count, check_numbers, shown

DAMPINGS = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
# κ over λ: the best points of the grids in benchmarks/comparison have between 0.003 and 0.3.
CLIP_RATIOS = (0.03, 0.3, 0.003)
# How many dampings the second round keeps, and how many candidates the third.
_KEPT_DAMPINGS, _KEPT_CANDIDATES = 2, 3
# How many times as long the third round's trials are.
_LONGER = 3
# A candidate is judged by the last steps, one of so many.
_LAST = 4


@dataclass(frozen=True)
class Trial:
    """A short training.

    Attributes:
        damping: the damping λ.
        kl_clip: the clip κ.
        steps: number of steps.
        loss: mean loss of the last quarter of the steps; NaN or Inf if one of them was.
    """

    damping: float
    kl_clip: float
    steps: int
    loss: float


@dataclass(frozen=True)
class FoundSettings:
    """What :func:`ms_kfac.find_settings` has found. ``print`` shows the trials, the best first.

    Attributes:
        trials: one per candidate, the longest that it had: first those of the third round, then the others,
            each in the order of their losses.
    """

    trials: tuple[Trial, ...]

    @property
    def best(self) -> dict[str, float]:
        """The best candidate's ``damping`` and ``kl_clip``."""
        return {"damping": self.trials[0].damping, "kl_clip": self.trials[0].kl_clip}

    def __str__(self) -> str:
        """The trials as a table."""
        lines = [f"{'damping':>8}  {'kl_clip':>8}  {'steps':>5}  loss"]
        for trial in self.trials:
            lines.append(f"{trial.damping:8.3g}  {trial.kl_clip:8.3g}  {trial.steps:5d}  {trial.loss:.4g}")
        return "\n".join(lines)


def find_settings(
    make_optimizer: Callable[..., SecondOrderOptimizer],
    network: nn.Cell,
    loss_fn: nn.Cell | None,
    dataset: Any,
    *,
    dampings: Iterable[float] = DAMPINGS,
    clip_ratios: Iterable[float] = CLIP_RATIOS,
    steps: int = 80,
    **arguments: Any,
) -> FoundSettings:
    r"""Find the damping and the KL clip by short trainings from the network's present weights.

    Three rounds train with one candidate after the other, always from the same weights. A candidate is judged
    by the mean training loss of its last quarter of steps.

    1. Each damping :math:`\lambda`, with the clip :math:`\kappa = r_1 \lambda`.
    2. The two best dampings, with the other ratios :math:`r_2, \ldots`
    3. The three best candidates so far, for three times as many steps.

    With the defaults these are 1,520 steps in all. The step is compiled once. Afterwards the network has the
    weights, and the moving moments of BatchNorm, that it had before. It is in training mode, and the
    optimizer that was made no longer taps it. MindSpore 2.10 keeps this optimizer's Parameters in memory
    until the process ends. Warnings of NaN and Inf are silenced during the search.

    A short training can't tell which settings are best in a long one, which tends to want a smaller clip, and
    it can't tell what helps generalization. The result is a start, and a long training deserves a trial with
    a third of the clip.

    Args:
        make_optimizer: called as ``make_optimizer(network, damping=..., kl_clip=...)``. It returns an
            optimizer of this package with these two, and with the other options of the later training.
        network: the network, as for :class:`ms_kfac.Model`.
        loss_fn: the loss function; None if the network includes it.
        dataset: the training data, a ``mindspore.dataset`` in batches. A short one is read several times.
        dampings: the dampings to try. Default: 1, 0.1, 0.01, 1e-3, 1e-4 and 1e-5.
        clip_ratios: the ratios :math:`r = \kappa / \lambda` to try. Default: 0.03, 0.3 and 0.003.
        steps: steps of a trial in the first two rounds, at least 4. If the losses of these rounds hardly
            differ, there were too few. Default: 80.
        **arguments: keyword arguments of :class:`ms_kfac.Model`, such as ``amp_level``.

    Returns:
        The trials, and the best candidate as options: ``make_optimizer(network, **found.best)``.

    Raises:
        TypeError: if ``make_optimizer`` does not return an optimizer of this package, or an argument has the
            wrong type.
        ValueError: if there is no damping, ratio or batch, or a number is outside its range.
        RuntimeError: if the loss becomes NaN or Inf with every candidate.

    Platforms: CPU, GPU (native kernels or the fallback).

    Examples:
        >>> import numpy as np
        >>> import ms_kfac
        >>> from mindspore import dataset, nn
        >>> images, labels = np.eye(8, dtype=np.float32), np.arange(8, dtype=np.int32)
        >>> data = dataset.NumpySlicesDataset((images, labels)).batch(4)
        >>> net, loss = nn.Dense(8, 8), nn.CrossEntropyLoss()
        >>> def kfac(net, **settings):
        ...     return ms_kfac.KFAC(net, 0.03, weight_decay=5e-4, **settings)
        >>> found = ms_kfac.find_settings(kfac, net, loss, data, steps=4)
        >>> optimizer = kfac(net, **found.best)
    """
    lambdas, ratios = _check_positive("dampings", dampings), _check_positive("clip_ratios", clip_ratios)
    steps = check_count("steps", steps, least=_LAST)
    damping, kl_clip = _Number("damping"), _Number("kl_clip")
    optimizer = make_optimizer(network, damping=damping, kl_clip=kl_clip)
    if not isinstance(optimizer, SecondOrderOptimizer):
        raise TypeError(f"make_optimizer must return an optimizer of ms_kfac, got {shown(optimizer)}")
    try:
        model = Model(network, loss_fn, optimizer, **arguments)
        trials = _Trials(model.train_network, optimizer, dataset, damping, kl_clip)
        with warnings.catch_warnings():
            # Candidates that are too bold are part of the search.
            warnings.filterwarnings("ignore", message=r"[\s\S]*\b(NaN|Inf)\b")
            try:
                found = _search(trials, lambdas, ratios, steps)
            finally:
                trials.restore()
    finally:
        optimizer.detach()
    if not math.isfinite(found[0].loss):
        raise RuntimeError(
            f"find_settings: the loss becomes NaN or Inf with each of {len(found)} candidates; lower the "
            "learning rate, or check the data"
        )
    return FoundSettings(tuple(found))


class _Number(nn.Cell):
    """A number that can be set between steps, in the form of a schedule."""

    def __init__(self, name: str) -> None:
        super().__init__(auto_prefix=False)
        self.value = Parameter(Tensor(1.0, ms.float32), name=f"find_settings.{name}", requires_grad=False)

    def construct(self, step: Tensor) -> Tensor:
        return self.value


class _Trials:
    """Trains one compiled step with one candidate after the other, each from the same state.

    Args:
        train_cell: takes a step.
        optimizer: its optimizer.
        dataset: the data.
        damping: the optimizer's damping.
        kl_clip: the optimizer's clip.
    """

    def __init__(
        self,
        train_cell: nn.Cell,
        optimizer: SecondOrderOptimizer,
        dataset: Any,
        damping: _Number,
        kl_clip: _Number,
    ) -> None:
        self.train_cell, self.optimizer, self.dataset = train_cell, optimizer, dataset
        self.damping, self.kl_clip = damping.value, kl_clip.value
        train_cell.set_train()
        settings = {id(self.damping), id(self.kl_clip)}
        state = [p for p in train_cell.get_parameters() if id(p) not in settings]
        self.saved = {parameter.name: parameter.value().copy() for parameter in state}
        restored = optimizer.restore(self.saved)
        others = set(self.saved) - {*restored.network, *restored.optimizer}
        # Those of the cell itself, such as a loss scale.
        self.others = [parameter for parameter in state if parameter.name in others]

    def restore(self) -> None:
        """Set the state from before the first trial."""
        self.optimizer.restore(self.saved)
        for parameter in self.others:
            ops.assign(parameter, self.saved[parameter.name])

    def make(self, damping: float, ratio: float, steps: int) -> Trial:
        """Train with one candidate."""
        self.restore()
        # 0.03 * 1e-3 is 2.9999999999999997e-05.
        kl_clip = float(f"{ratio * damping:.6g}")
        ops.assign(self.damping, Tensor(damping, ms.float32))
        ops.assign(self.kl_clip, Tensor(kl_clip, ms.float32))
        losses = [self.step(*batch) for batch in self.batches(steps)]
        last = Tensor(np.mean(losses[-(steps // _LAST) :]), ms.float32)
        # All ranks must choose the same candidate.
        return Trial(damping, kl_clip, steps, float(self.optimizer.over_ranks(last).asnumpy()))

    def batches(self, steps: int) -> Iterator[Sequence[Tensor]]:
        """The first batches of the data, in several epochs if there are fewer than steps."""
        while steps > 0:
            before = steps
            for batch in islice(self.dataset.create_tuple_iterator(num_epochs=1), steps):
                steps -= 1
                yield batch
            if steps == before:
                raise ValueError("dataset must have at least one batch, got none")

    def step(self, *batch: Tensor) -> float:
        """Train on a batch, and return the loss before the step."""
        outputs = self.train_cell(*batch)
        loss = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        return float(loss.asnumpy().mean())


def _search(trials: _Trials, dampings: Sequence[float], ratios: Sequence[float], steps: int) -> list[Trial]:
    """The trials of the three rounds, each candidate's longest, the best first."""
    first = sorted((trials.make(damping, ratios[0], steps) for damping in dampings), key=_rank)
    best = [trial.damping for trial in first[:_KEPT_DAMPINGS]]
    second = [trials.make(damping, ratio, steps) for damping in best for ratio in ratios[1:]]
    found = sorted((*first, *second), key=_rank)
    kept = found[:_KEPT_CANDIDATES]
    third = [trials.make(trial.damping, trial.kl_clip / trial.damping, _LONGER * steps) for trial in kept]
    return sorted(third, key=_rank) + found[_KEPT_CANDIDATES:]


def _rank(trial: Trial) -> float:
    return trial.loss if math.isfinite(trial.loss) else math.inf


def _check_positive(name: str, value: Iterable[float]) -> list[float]:
    numbers = check_numbers(name, value, "positive numbers, at least one", positive=True)
    return [float(number) for number in numbers.reshape(-1)]
