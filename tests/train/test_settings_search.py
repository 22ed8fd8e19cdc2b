"""find_settings: what its trials equal, what it leaves behind, and what it refuses."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import nn
from mindspore.amp import DynamicLossScaleManager

import ms_kfac
from ms_kfac.optim.methods import METHODS
from ms_kfac.train.settings_search import Trial, _Trials
from tests.support.bank import tensor
from tests.support.loops import cross_entropy

STEPS = 8


def kfac(net: nn.Cell, **settings: Any) -> ms_kfac.KFAC:
    return ms_kfac.KFAC(net, 0.1, averaging=0.5, **settings)


def state_of(net: nn.Cell) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy().copy() for parameter in net.get_parameters()}


def with_moments() -> nn.Cell:
    ms.set_seed(3)
    return nn.SequentialCell(nn.Dense(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dense(8, 3))


def rows(count: int = 5, size: int = 8, scale: float = 1.0) -> ds.Dataset:
    """Fewer batches than a trial has steps."""
    rng = np.random.default_rng(6)
    x = (scale * rng.standard_normal((count * size, 6))).astype(np.float32)
    return ds.NumpySlicesDataset((x, x[:, :3].argmax(1).astype(np.int32)), shuffle=False).batch(size)


def dense() -> nn.Cell:
    ms.set_seed(3)
    return nn.Dense(6, 3)


def losses_of(
    net: nn.Cell, optimizer: nn.Optimizer, steps: int, data: ds.Dataset, scale: nn.Cell | None = None
) -> list[float]:
    step = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, cross_entropy()), optimizer, scale_sense=scale)
    step.set_train()
    batches = [[tensor(a) for a in batch] for batch in data.create_tuple_iterator(output_numpy=True)]
    outputs = [step(*batches[index % len(batches)]) for index in range(steps)]
    return [float((loss if scale is None else loss[0]).asnumpy()) for loss in outputs]


def test_each_trial_is_a_training_of_its_own(mode: int) -> None:
    """A trial's loss is that of a new optimizer with these settings, on the same weights and batches."""
    net = with_moments()
    start = state_of(net)
    found = ms_kfac.find_settings(
        kfac, net, cross_entropy(), rows(), dampings=(1.0, 0.01, 1e-4), clip_ratios=(0.1, 0.01), steps=STEPS
    )

    assert [trial.steps for trial in found.trials] == [3 * STEPS] * 3 + [STEPS] * 5
    tried = {(trial.damping, trial.kl_clip) for trial in found.trials[3:]}
    assert len(tried) == 5
    kept = {(trial.damping, trial.kl_clip) for trial in found.trials[3:6]}
    assert {(trial.damping, trial.kl_clip) for trial in found.trials[:3]} == kept
    assert {damping for damping, _ in tried} == {1.0, 0.01, 1e-4}
    losses = [trial.loss for trial in found.trials]
    assert losses[:3] == sorted(losses[:3])
    assert losses[3:] == sorted(losses[3:])
    assert found.best == {"damping": found.trials[0].damping, "kl_clip": found.trials[0].kl_clip}
    for trial in found.trials:
        fresh = with_moments()
        for name, value in state_of(fresh).items():
            np.testing.assert_array_equal(value, start[name])
        optimizer = kfac(fresh, damping=trial.damping, kl_clip=trial.kl_clip)
        expected = losses_of(fresh, optimizer, trial.steps, rows())[-(trial.steps // 4) :]
        assert trial.loss == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_network_is_as_before(mode: int) -> None:
    net = with_moments()
    start = state_of(net)

    found = ms_kfac.find_settings(
        kfac, net, cross_entropy(), rows(), dampings=(0.1,), clip_ratios=(0.1,), steps=STEPS
    )

    for name, value in state_of(net).items():
        np.testing.assert_array_equal(value, start[name], err_msg=name)
    # A tap that is left would warn here that it is taken over, and warnings are errors in these tests.
    optimizer = kfac(net, **found.best)
    assert losses_of(net, optimizer, 3, rows())[0] > 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str) -> None:
    """The second trial of a candidate starts as the first did, whatever the method keeps."""
    optimizer_class = getattr(ms_kfac, METHODS[method].class_name)
    found = ms_kfac.find_settings(
        lambda net, **settings: optimizer_class(net, 0.1, **settings),
        with_moments(),
        cross_entropy(),
        rows(),
        dampings=(0.1,),
        clip_ratios=(0.1,),
        steps=STEPS,
    )
    net = with_moments()
    losses = losses_of(net, optimizer_class(net, 0.1, **found.best), 3 * STEPS, rows())
    assert found.trials[0].loss == pytest.approx(np.mean(losses[-(3 * STEPS // 4) :]), rel=1e-5)


def test_taps_are_removed_after_an_error() -> None:
    net = with_moments()
    kinds = [type(cell) for cell in net.cells()]
    with pytest.raises(ValueError, match="dataset must have at least one batch, got none"):
        ms_kfac.find_settings(kfac, net, cross_entropy(), rows().skip(5), steps=4)
    assert [type(cell) for cell in net.cells()] == kinds


# Squares of gradients at this scale are infinite.
@pytest.mark.filterwarnings("ignore:.*statistics of layer Dense hold Inf:UserWarning")
def test_the_loss_scale_starts_anew(mode: int) -> None:
    """A step overflows at the first scale, and none at the next: the second trial overflows again."""

    def optimizer_of(net: nn.Cell, **settings: Any) -> ms_kfac.KFAC:
        return ms_kfac.KFAC(net, 1e-4, **settings)

    def manager() -> DynamicLossScaleManager:
        return DynamicLossScaleManager(2.0**126, 2**10, 100)

    data = rows(scale=30.0)
    net = dense()
    found = ms_kfac.find_settings(
        optimizer_of,
        net,
        cross_entropy(),
        data,
        dampings=(0.1,),
        clip_ratios=(0.1,),
        steps=STEPS,
        loss_scale_manager=manager(),
    )
    trial = found.trials[0]
    net = dense()
    optimizer = optimizer_of(net, **found.best)
    losses = losses_of(net, optimizer, trial.steps, data, manager().get_update_cell())
    assert trial.loss == pytest.approx(np.mean(losses[-(trial.steps // 4) :]), rel=1e-5)
    assert optimizer.global_step.asnumpy() == trial.steps - 1


def test_candidates_that_diverge_are_the_last() -> None:
    """At a huge rate the loss becomes NaN or Inf with a huge clip, and does not with a small one."""
    found = ms_kfac.find_settings(
        lambda net, **settings: ms_kfac.KFAC(net, 1e15, **settings),
        nn.Dense(6, 3),
        cross_entropy(),
        rows(),
        dampings=(0.1,),
        clip_ratios=(1e38, 1e-6),
        steps=STEPS,
    )
    assert found.best["kl_clip"] == pytest.approx(1e-7)
    assert [np.isfinite(trial.loss) for trial in found.trials] == [True, True, False, False]


def test_a_long_trial_that_diverges_leaves_the_short_ones() -> None:
    rates = [0.1] * STEPS + [3e38] * 100
    found = ms_kfac.find_settings(
        lambda net, **settings: ms_kfac.KFAC(net, rates, **settings),
        dense(),
        cross_entropy(),
        rows(),
        dampings=(1.0, 0.1),
        clip_ratios=(1e37,),
        steps=STEPS,
    )
    assert [trial.steps for trial in found.trials] == [STEPS] * 2 + [3 * STEPS] * 2


def test_trials_see_the_same_batches_and_the_seed_stays() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((40, 6)).astype(np.float32)
    data = ds.NumpySlicesDataset((x, x[:, :3].argmax(1).astype(np.int32)), shuffle=True).batch(8)
    seed = ds.config.get_seed()
    net = dense()

    def losses() -> list[float]:
        found = ms_kfac.find_settings(
            kfac, net, cross_entropy(), data, dampings=(0.1,), clip_ratios=(0.1,), steps=STEPS
        )
        return [trial.loss for trial in found.trials]

    assert losses() == losses()
    assert ds.config.get_seed() == seed


def test_steps_are_those_of_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two micro-batches per step, in a trial of 4 steps and one of 12."""
    passes: list[float] = []
    step = _Trials.step

    def noted(self: _Trials, *batch: ms.Tensor) -> ms.Tensor:
        loss = step(self, *batch)
        passes.append(float(loss.asnumpy()))
        return loss

    monkeypatch.setattr(_Trials, "step", noted)
    found = ms_kfac.find_settings(
        lambda net, **settings: ms_kfac.KFAC(net, 0.1, accumulation_steps=2, **settings),
        dense(),
        cross_entropy(),
        rows(),
        dampings=(0.1,),
        clip_ratios=(0.1,),
        steps=4,
        accumulation_steps=2,
    )
    assert len(passes) == 2 * (4 + 12)
    # The last quarter: one step of the short trial, three of the long one.
    assert [trial.loss for trial in found.trials] == pytest.approx(
        [np.mean(passes[-6:]), np.mean(passes[6:8])]
    )


def test_the_table_has_the_best_first() -> None:
    text = str(ms_kfac.FoundSettings((Trial(0.1, 0.003, 240, 1.25), Trial(1.0, 0.03, 80, 2.5))))
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["0.1", "0.003", "240", "1.25"],
        ["1", "0.03", "80", "2.5"],
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dampings": ()}, r"dampings must be positive numbers, at least one, got \(\)"),
        ({"dampings": (0.1, 0.0)}, "dampings must be .*0.0 at index 1"),
        ({"clip_ratios": "0.1"}, "clip_ratios must be .*, got '0.1'"),
        ({"steps": 3}, "steps must be an int of at least 4, got 3"),
        (
            {"dampings": (1e-30,), "clip_ratios": (1e-20,)},
            "dampings times clip_ratios must be .* 0 in float32",
        ),
        ({"dataset": [1]}, r"dataset must be a mindspore.dataset, got \[1\]"),
        ({"amp_level": "O1"}, "amp_level must be 'O0', 'O2' or 'O3', got 'O1'"),
        (
            {"make_optimizer": lambda net, **_: ms_kfac.KFAC(net, 0.1)},
            "pass damping on .*, got another damping",
        ),
        (
            {"make_optimizer": lambda net, damping, kl_clip: ms_kfac.KFAC(net, 0.1, damping=damping)},
            "pass kl_clip on .* KFAC",
        ),
        (
            {"make_optimizer": lambda net, damping, kl_clip: kfac(net, damping=damping, kl_clip=None)},
            "pass kl_clip on",
        ),
        (
            {"make_optimizer": lambda net, **settings: kfac(nn.Dense(2, 2), **settings)},
            "train the given network",
        ),
        (
            {"make_optimizer": lambda net, **settings: kfac(net, on_nonfinite="raise", **settings)},
            "must leave on_nonfinite='skip'",
        ),
        (
            {"make_optimizer": lambda net, **_: nn.Momentum(net.trainable_params(), 0.1, 0.9)},
            "ms_kfac, got Mom",
        ),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    arguments = {"make_optimizer": kfac, "network": with_moments(), "dataset": rows()} | options
    with pytest.raises((TypeError, ValueError), match=message):
        ms_kfac.find_settings(loss_fn=cross_entropy(), **arguments)


def test_nan_with_every_candidate_is_an_error() -> None:
    x = np.full((16, 6), np.nan, np.float32)
    data = ds.NumpySlicesDataset((x, np.zeros(16, np.int32)), shuffle=False).batch(8)
    with pytest.raises(RuntimeError, match="NaN or Inf in each of 4 trials"):
        ms_kfac.find_settings(
            kfac, nn.Dense(6, 3), cross_entropy(), data, dampings=(0.1, 0.01), clip_ratios=(0.1,), steps=4
        )
