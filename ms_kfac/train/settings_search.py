"""A search for the damping and the KL clip by short trainings from the same weights."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.dataset import config

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
    """What :func:`ms_kfac.find_settings` has found. ``print`` shows all trials, the best first.

    Attributes:
        trials: the trials of the third round, then those of the first two, each in the order of their losses.
            Trials whose loss is NaN or Inf are the last ones.
    """

    trials: tuple[Trial, ...]

    @property
    def best(self) -> dict[str, float]:
        """``damping`` and ``kl_clip`` of the first trial."""
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

    Three rounds train with one candidate after the other, always from the same weights and on the same
    batches; random layers, such as dropout, draw anew. A candidate is judged by the mean training loss of its
    last quarter of steps.

    1. Each damping :math:`\lambda`, with the clip :math:`\kappa = r_1 \lambda`.
    2. The two best dampings, with the other ratios :math:`r_2, \ldots`
    3. The three best candidates so far, for three times as many steps.

    With the defaults these are 1,520 steps in all, of one compiled step. Afterwards the network has the
    weights, and the moving moments of BatchNorm, that it had before. It is in training mode, and the search's
    optimizer no longer taps it. An earlier optimizer of this package loses its taps, as to any new one: make
    the optimizer of the training after the search. During the search, a second copy of weights and optimizer
    state is in memory, and MindSpore 2.10 keeps the Parameters of compiled steps until the process ends.
    Warnings of NaN and Inf are silenced.

    The result is a start. A long training tends to want a smaller clip than a short one, so try a third of
    the clip as well. The training loss does not show which settings generalize best.

    Args:
        make_optimizer: called once, as ``make_optimizer(network, damping=..., kl_clip=...)``, with two Cells.
            It passes both on, unchanged, to an optimizer of this package with ``on_nonfinite="skip"``. Other
            options are those of the later training, except that the learning rate should be constant: a
            schedule would start anew in each trial.
        network: the network, as for :class:`ms_kfac.Model`.
        loss_fn: the loss function; None if the network includes it.
        dataset: the training data, a ``mindspore.dataset`` in batches. Each trial starts a new epoch, and
            further ones if an epoch has fewer batches than the trial has steps.
        dampings: the dampings to try. Default: 1, 0.1, 0.01, 1e-3, 1e-4 and 1e-5.
        clip_ratios: the ratios :math:`r = \kappa / \lambda` to try. Default: 0.03, 0.3 and 0.003.
        steps: steps of a trial in the first two rounds, at least 4. If their losses hardly differ, there were
            too few. Default: 80.
        **arguments: keyword arguments of :class:`ms_kfac.Model`. ``amp_level`` casts the network's layers for
            good, as there; "O1" is refused, because MindSpore 2.10 can't use it again in the training.

    Returns:
        The trials, and the best candidate as options: ``make_optimizer(network, **found.best)``.

    Raises:
        TypeError: if ``make_optimizer`` does not return an optimizer of this package, or an argument has the
            wrong type.
        ValueError: if the optimizer does not use both settings, trains another network, or raises at NaN; if
            there is no damping, ratio or batch; or if a number is outside its range.
        RuntimeError: if the loss becomes NaN or Inf in every trial.

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
    _check_positive("dampings times clip_ratios", [one * ratio for one in lambdas for ratio in ratios])
    steps = check_count("steps", steps, least=_LAST)
    if not hasattr(dataset, "create_tuple_iterator"):
        raise TypeError(f"dataset must be a mindspore.dataset, got {shown(dataset)}")
    if arguments.get("amp_level") == "O1":
        raise ValueError(
            "amp_level must be 'O0', 'O2' or 'O3', got 'O1', which MindSpore 2.10 uses once per process"
        )
    damping, kl_clip = _Number("damping"), _Number("kl_clip")
    optimizer = make_optimizer(network, damping=damping, kl_clip=kl_clip)
    if not isinstance(optimizer, SecondOrderOptimizer):
        raise TypeError(f"make_optimizer must return an optimizer of ms_kfac, got {shown(optimizer)}")
    try:
        _check_optimizer(optimizer, network, damping, kl_clip)
        model = Model(network, loss_fn, optimizer, **arguments)
        trials = _Trials(model.train_network, optimizer, dataset, damping, kl_clip)
        seed = config.get_seed()
        try:
            with warnings.catch_warnings():
                # Candidates that are too bold are part of the search.
                warnings.filterwarnings("ignore", message=r"[\s\S]*\b(NaN|Inf)\b")
                found = _search(trials, lambdas, ratios, steps)
        finally:
            config.set_seed(seed)
            trials.restore()
    finally:
        optimizer.detach()
    if not math.isfinite(found[0].loss):
        raise RuntimeError(
            f"find_settings: the loss becomes NaN or Inf in each of {len(found)} trials; lower the learning "
            "rate, or check the data"
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
        self.saved = [(parameter, Tensor(parameter.asnumpy().copy(), parameter.dtype)) for parameter in state]

    def restore(self) -> None:
        """Set the state from before the first trial."""
        for parameter, value in self.saved:
            ops.assign(parameter, value)

    def make(self, damping: float, kl_clip: float, steps: int) -> Trial:
        """Train with one candidate."""
        self.restore()
        ops.assign(self.damping, Tensor(damping, ms.float32))
        ops.assign(self.kl_clip, Tensor(kl_clip, ms.float32))
        count = steps * self.optimizer.accumulation_steps
        # Read behind the last step, so that no other step waits for the device.
        losses = [self.step(*batch) for batch in self.batches(count)][-(count // _LAST) :]
        last = Tensor(np.mean([loss.asnumpy().mean() for loss in losses]), ms.float32)
        # All ranks must choose the same candidate.
        return Trial(damping, kl_clip, steps, float(self.optimizer.over_ranks(last).asnumpy()))

    def batches(self, count: int) -> Iterator[Sequence[Tensor]]:
        """The first batches of the data, shuffled equally in each trial, in several epochs if need be."""
        for epoch in itertools.count():
            config.set_seed(epoch)
            before = count
            for batch in itertools.islice(self.dataset.create_tuple_iterator(num_epochs=1), count):
                count -= 1
                yield batch
            if count == 0:
                return
            if count == before:
                raise ValueError("dataset must have at least one batch, got none")

    def step(self, *batch: Tensor) -> Tensor:
        """Train on a batch, and return the loss before the step."""
        outputs = self.train_cell(*batch)
        return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def _search(trials: _Trials, dampings: Sequence[float], ratios: Sequence[float], steps: int) -> list[Trial]:
    """The trials of the three rounds, in the order of :class:`FoundSettings`."""

    def try_ratios(damping: float, tried: Sequence[float]) -> list[Trial]:
        # 0.03 * 1e-3 is 2.9999999999999997e-05.
        return [trials.make(damping, float(f"{ratio * damping:.6g}"), steps) for ratio in tried]

    first = sorted((trial for damping in dampings for trial in try_ratios(damping, ratios[:1])), key=_rank)
    second = [trial for one in first[:_KEPT_DAMPINGS] for trial in try_ratios(one.damping, ratios[1:])]
    short = sorted((*first, *second), key=_rank)
    kept = short[:_KEPT_CANDIDATES]
    long = [trials.make(trial.damping, trial.kl_clip, _LONGER * steps) for trial in kept]
    return sorted([*sorted(long, key=_rank), *short], key=lambda trial: not math.isfinite(trial.loss))


def _rank(trial: Trial) -> float:
    return trial.loss if math.isfinite(trial.loss) else math.inf


def _check_optimizer(
    optimizer: SecondOrderOptimizer, network: nn.Cell, damping: _Number, kl_clip: _Number
) -> None:
    clip = optimizer.trust_region.kl_clip.schedule if optimizer.clips else None
    for name, used, given in (
        ("damping", optimizer.damping.schedule, damping),
        ("kl_clip", clip, kl_clip),
    ):
        if used is not given:
            raise ValueError(
                f"make_optimizer must pass {name} on to the optimizer unchanged, got another {name} in its "
                f"{type(optimizer).__name__}"
            )
    of_network = {id(parameter) for parameter in network.get_parameters()}
    others = [parameter.name for parameter in optimizer.parameters if id(parameter) not in of_network]
    if others:
        raise ValueError(
            f"make_optimizer must train the given network, got the Parameter {others[0]} outside"
        )
    if optimizer.raises_nonfinite:
        raise ValueError("make_optimizer must leave on_nonfinite='skip', got 'raise', which ends the search")


def _check_positive(name: str, value: Iterable[float]) -> list[float]:
    numbers = check_numbers(name, value, "positive numbers, at least one", positive=True)
    return list(dict.fromkeys(map(float, numbers.reshape(-1))))
