"""`first_order="adam"`: parameters without a block follow AdamW, those with one stay as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from ms_kfac.curvature import DiagonalBlock
from tests.oracle.adam import AdamW, MomentumAndAdam
from tests.oracle.mixed import MixedReference
from tests.oracle.momentum import Momentum
from tests.support.bank import randomise, tensor
from tests.support.loops import Batch, cross_entropy, functional_step, gradient_function, run, train_by
from tests.support.methods import METHODS, fixed_intervals
from tests.support.networks import weights_of
from tests.support.normalization import TokenNet, token_batches, token_net_reference

# Normalization and the lone Parameter are over 5 % of the weights.
pytestmark = pytest.mark.filterwarnings("ignore:.* of the weights have no curvature")

# As MindSpore's kernel gets them.
BETAS = {"beta1": float(np.float32(0.9)), "beta2": float(np.float32(0.999))}
NORM = ("norm.gamma", "norm.beta")


class Normed(nn.Cell):
    """Dense layers around a layer normalisation, and a lone Parameter: quick to compile."""

    def __init__(self, seed: int = 3) -> None:
        super().__init__()
        self.hidden = nn.Dense(5, 4)
        self.norm = nn.LayerNorm((4,))
        self.shift = ms.Parameter(ms.Tensor(np.zeros(4), ms.float32), name="shift")
        self.activation = nn.Tanh()
        self.head = nn.Dense(4, 3)
        randomise(self, np.random.default_rng(seed))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.head(self.activation(self.norm(self.hidden(x) + self.shift)))


BY_ADAM = (*NORM, "shift")


def vectors(count: int) -> list[Batch]:
    """(inputs, labels) for `Normed`."""
    rng = np.random.default_rng(2)
    return [
        (rng.standard_normal((8, 5)).astype(np.float32), rng.integers(0, 3, 8).astype(np.int32))
        for _ in range(count)
    ]


def test_steps_equal_the_reference(mode: int) -> None:
    """An embedding and a layer norm by AdamW, dense layers by K-FAC under a clip that binds."""
    data = token_batches(4)
    net = TokenNet()
    start = expected = weights_of(net)
    settings = {"learning_rate": 0.02, "weight_decay": 0.5, "eps": 1e-4}
    by_adam = ("embed.embedding_table", *NORM)
    rule = MomentumAndAdam(Momentum(0.9, weight_decay=0.1), AdamW(**settings, **BETAS), by_adam)
    reference = MixedReference(token_net_reference(), rule, 0.03, kl_clip=1e-3, first_order=("embed", "norm"))
    for x, y in data:
        _, expected = reference.step(expected, x, y, 0.1)
    optimizer = ms_kfac.KFAC(
        net,
        0.1,
        damping=0.03,
        weight_decay=0.1,
        kl_clip=1e-3,
        blocks={"embedding": "first_order"},
        first_order=ms_kfac.AdamW(**settings),
        **fixed_intervals(1, 1),
    )

    train_by("cell", net, optimizer, data)

    assert optimizer.clip_factor < 1.0
    for name, value in weights_of(net).items():
        moved = np.abs(expected[name] - start[name]).max()
        assert moved > 1e-4, name
        # float32 sums (1e-6) behind damped inverses of condition up to 1e3.
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-3 * moved, err_msg=name)


def follow(
    net: nn.Cell,
    optimizer: nn.Optimizer,
    data: Sequence[Batch],
    names: Sequence[str],
    oracle: AdamW,
    rates: Callable[[int, str], float],
    decays: Callable[[str], float | None] = lambda name: None,
) -> None:
    """Trains; compares the step of each named weight with the oracle's on the same gradient."""
    gradient = gradient_function(net, optimizer, cross_entropy())
    for number, (x, y) in enumerate(data):
        _, gradients = gradient(tensor(x), tensor(y))
        before = weights_of(net)
        optimizer(gradients)
        after = weights_of(net)
        by_name = {p.name: g.asnumpy() for p, g in zip(optimizer.parameters, gradients)}
        for name in names:
            rate = rates(number, name)
            value = oracle.apply(name, before[name], by_name[name], rate, decays(name))
            # float32 weights of about 1, steps of about the rate.
            np.testing.assert_allclose(after[name], value, rtol=0, atol=2e-4 * rate, err_msg=name)
        for name in set(before) - set(names):
            assert np.abs(after[name] - before[name]).max() > 1e-5, name


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str) -> None:
    """ "adam" is AdamW with its own rate of 1e-3, whatever the optimizer's."""
    ms.set_context(mode=ms.GRAPH_MODE)
    net = Normed()
    cls, options = METHODS[method]
    # SPNGD would precondition the normalization.
    options = {"damping": 0.1, "normalization": "first_order", **options}
    optimizer = cls(net, [0.1, 0.05], weight_decay=0.1, first_order="adam", **options)
    follow(net, optimizer, vectors(2), BY_ADAM, AdamW(**BETAS), lambda step, name: 1e-3)
    ms.set_context(mode=ms.PYNATIVE_MODE)


class Schedule(nn.Cell):
    """One number per step."""

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values = tensor(np.array(values))

    def construct(self, step: ms.Tensor) -> ms.Tensor:
        return self.values[step]


def test_with_every_layer_skipped_it_is_adam_weight_decay(mode: int) -> None:
    """MindSpore's optimizer has no bias correction: it gets the corrected rates and decays."""
    data = vectors(4)
    results = []
    t = np.arange(1, 5)
    growth = np.sqrt(1 - BETAS["beta2"] ** t) / (1 - BETAS["beta1"] ** t)
    for ours in (True, False):
        net = Normed()
        if ours:
            with pytest.warns(UserWarning, match="no layer of the network is preconditioned.* acts as AdamW"):
                optimizer: nn.Optimizer = ms_kfac.KFAC(
                    net,
                    0.1,
                    skip=(".*",),
                    first_order=ms_kfac.AdamW([0.01, 0.02, 0.03, 0.04], eps=1e-12, weight_decay=0.2),
                )
        else:
            optimizer = nn.AdamWeightDecay(
                net.trainable_params(),
                [float(rate) for rate in 0.01 * t * growth],
                eps=1e-12,
                weight_decay=Schedule(list(0.2 / growth)),
            )
        train_by("cell", net, optimizer, data)
        results.append(weights_of(net))
    for name, weight in results[0].items():
        np.testing.assert_allclose(weight, results[1][name], rtol=1e-5, atol=1e-6, err_msg=name)


def grouped(net: nn.Cell) -> list[dict[str, Any]]:
    """Groups that set what `RATES` and `DECAYS` say."""
    named = {p.name: p for p in net.trainable_params()}
    rest = [p for name, p in named.items() if name not in BY_ADAM]
    return [
        {"params": rest, "lr": 0.05, "weight_decay": 0.01},
        {"params": [named["norm.gamma"]], "lr": 4e-3, "weight_decay": 0.3},
        {"params": [named["norm.beta"]], "weight_decay": 0.0},
        {"params": [named["shift"]]},
        {"order_params": net.trainable_params()},
    ]


def test_groups_take_precedence(mode: int) -> None:
    """A rate and decay of the group; a decay of 0; neither, which leaves those of the settings."""
    net = Normed()
    optimizer = ms_kfac.KFAC(
        net,
        # MindSpore keeps the groups' rates in another form where one of the rates changes.
        0.1 if mode == ms.GRAPH_MODE else [0.1] * 3,
        params=grouped(net),
        weight_decay=0.7,
        first_order=ms_kfac.AdamW(nn.ExponentialDecayLR(2e-3, 0.5, 1), weight_decay=0.2),
        **fixed_intervals(1, 1),
    )
    decays = {"norm.gamma": 0.3, "norm.beta": 0.0, "shift": 0.2}

    def rate(step: int, name: str) -> float:
        return 4e-3 if name == "norm.gamma" else 2e-3 * 0.5**step

    follow(net, optimizer, vectors(3), BY_ADAM, AdamW(**BETAS), rate, decays.__getitem__)


def test_groups_with_decays_alone_and_a_decay_that_changes() -> None:
    """Without groups' rates; the decay of a Cell covers gamma where there are groups, as in MindSpore."""
    net = Normed()
    ms.set_context(mode=ms.GRAPH_MODE)
    named = {p.name: p for p in net.trainable_params()}
    others = [p for name, p in named.items() if name != "shift"]
    optimizer = ms_kfac.KFAC(
        net,
        0.1,
        params=[{"params": others}, {"params": [named["shift"]], "weight_decay": 0.4}],
        first_order=ms_kfac.AdamW(2e-3, weight_decay=Schedule([0.25] * 3)),
        **fixed_intervals(1, 1),
    )
    decays = {"shift": 0.4, "norm.gamma": 0.25, "norm.beta": 0.25}
    follow(
        *(net, optimizer, vectors(2), BY_ADAM, AdamW(**BETAS)), lambda step, name: 2e-3, decays.__getitem__
    )
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.mark.parametrize("method", ["KFAC", "EKFAC"])
def test_a_resumed_run_is_the_same_to_the_bit(mode: int, method: str, tmp_path: Path) -> None:
    data = vectors(5)
    cls, _ = METHODS[method]

    def start(seed: int) -> tuple[nn.Cell, nn.Optimizer, Any]:
        net = Normed(seed)
        net.set_train()
        adam = ms_kfac.AdamW([1e-3, 2e-3, 3e-3, 4e-3, 5e-3], weight_decay=0.1)
        optimizer = cls(net, 0.05, first_order=adam, **fixed_intervals(2, 2))
        return net, optimizer, functional_step(net, optimizer, cross_entropy())

    _, optimizer, step = start(3)
    run(step, data[:3])
    ms.save_checkpoint(optimizer, str(tmp_path / "optimizer.ckpt"))
    run(step, data[3:])

    _, other, next_step = start(7)
    missing, _ = ms.load_param_into_net(other, ms.load_checkpoint(str(tmp_path / "optimizer.ckpt")))
    assert not missing
    run(next_step, data[3:])
    found = {p.name: p.asnumpy() for p in other.get_parameters()}
    assert {"kfac.adam.m.shift", "ekfac.adam.m.shift"} & set(found)
    for parameter in optimizer.get_parameters():
        np.testing.assert_array_equal(found[parameter.name], parameter.asnumpy(), err_msg=parameter.name)


def test_moments_of_momentum_are_left_to_layers_with_blocks() -> None:
    names = {p.name for p in ms_kfac.KFAC(Normed(), 0.1, first_order="adam").get_parameters()}
    assert {name for name in names if name.startswith("moments.")} == {
        f"moments.{layer}.{kind}" for layer in ("hidden", "head") for kind in ("weight", "bias")
    }
    assert {name for name in names if name.startswith("kfac.adam.")} == {
        *(f"kfac.adam.{moment}.{name}" for moment in "mv" for name in BY_ADAM),
        *("kfac.adam.learning_rate", "kfac.adam.corrections"),
    }


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"first_order": "adamw"}, ValueError, "first_order must be 'momentum', 'adam' or .* got 'adamw'"),
    ({"first_order": None}, TypeError, "first_order must be 'momentum', 'adam' or .* got None"),
    ({"first_order": ms_kfac.AdamW}, TypeError, "first_order must be .* got <class"),
]
BAD_SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"learning_rate": -0.1}, ValueError, "AdamW: learning_rate must be a non-negative .* got -0.1"),
    ({"learning_rate": "0.1"}, TypeError, "AdamW: learning_rate must be .* got '0.1'"),
    ({"learning_rate": []}, ValueError, r"AdamW: learning_rate must be .* got \[\]"),
    ({"beta1": 1.0}, ValueError, r"AdamW: beta1 must be a number in \[0, 1\), got 1.0"),
    ({"beta1": "0.9"}, TypeError, "AdamW: beta1 must be a number .* got '0.9'"),
    ({"beta2": -0.1}, ValueError, r"AdamW: beta2 must be a number in \[0, 1\), got -0.1"),
    ({"eps": 0.0}, ValueError, r"AdamW: eps must be a number in \(0, inf\), got 0.0"),
    ({"weight_decay": -1.0}, ValueError, r"AdamW: weight_decay must be a number in \[0, inf\), got -1.0"),
    ({"weight_decay": None}, TypeError, "AdamW: weight_decay must be .* got None"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD, ids=str)
def test_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ms_kfac.KFAC(Normed(), 0.1, **options)


@pytest.mark.parametrize(("options", "error", "message"), BAD_SETTINGS, ids=str)
def test_settings_are_refused_by_name(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ms_kfac.AdamW(**options)


def test_settings_are_frozen() -> None:
    settings = ms_kfac.AdamW(2e-3)
    with pytest.raises(AttributeError):
        settings.beta1 = 0.5  # type: ignore[misc]
    assert repr(settings) == "AdamW(learning_rate=0.002, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0)"
    assert "learning_rate=list" in repr(ms_kfac.AdamW([0.1, 0.2]))


def test_one_rate_for_both_rules_is_refused_before_the_network_is_tapped() -> None:
    net = Normed()
    kinds = [type(cell) for _, cell in net.cells_and_names()]
    groups = [{"params": net.trainable_params(), "lr": 0.05}]
    message = r"params\[0\]: 'lr' must be .*\(hidden.weight\) .*\(shift\), got 0.05 for both"
    with pytest.raises(ValueError, match=message):
        ms_kfac.KFAC(net, 0.1, params=groups, first_order="adam")
    assert [type(cell) for _, cell in net.cells_and_names()] == kinds
    ms_kfac.KFAC(net, 0.1, params=groups)


def test_the_summary_names_the_rule() -> None:
    adam = ms_kfac.AdamW(5e-4, weight_decay=0.01)
    text = ms_kfac.KFAC(Normed(), 0.1, first_order=adam).summary()
    assert f"2 cells first-order: 12 weights, updated by {adam!r}" in text
    assert "2 cells first-order: 12 weights, updated by momentum" in ms_kfac.KFAC(Normed(), 0.1).summary()


def test_nothing_left_for_adam_is_told() -> None:
    net = Normed()
    with pytest.warns(UserWarning, match="first_order: every parameter has a block"):
        ms_kfac.KFAC(
            net,
            0.1,
            first_order="adam",
            normalization="unit_wise",
            blocks={"other": DiagonalBlock},
        )
