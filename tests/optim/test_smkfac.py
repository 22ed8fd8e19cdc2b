"""SMKFAC as an optimizer: its options, the scale of its steps, its state."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import Batch, cross_entropy, functional_step, gradient_function, run
from tests.support.networks import SMALL_NET_LAYERS, SmallNet, batches, weights_of

BAD = [
    ({"full_refreshes": 0}, "1"),
    ({"full_refreshes": 2.5}, "int"),
    ({"alpha": 0.0}, "(0, inf)"),
    ({"beta": -0.1}, "(0, inf)"),
    ({"beta": "0.1"}, "number"),
    ({"rescale": "norm"}, "'trace'"),
    ({"full_refresh_interval": 0}, "1"),
    ({"full_refresh_interval": True}, "int"),
]


@pytest.mark.parametrize(("options", "accepted"), BAD, ids=[str(options) for options, _ in BAD])
def test_refused_by_name(options: dict[str, object], accepted: str) -> None:
    ((name, value),) = options.items()
    with pytest.raises((TypeError, ValueError)) as error:
        ms_kfac.SMKFAC(nn.SequentialCell(nn.Dense(2, 2)), 0.1, **options)
    message = str(error.value)
    assert message.startswith(name)
    assert repr(value) in message
    assert accepted in message


def test_state_has_distinct_names() -> None:
    optimizer = ms_kfac.SMKFAC(SmallNet(), 0.1, rescale="trace", full_refresh_interval=5)
    names = [p.name for p in optimizer.get_parameters()]
    assert len(names) == len(set(names))
    for layer in SMALL_NET_LAYERS:
        for part in ("refreshes", "full", "weights", "A_diagonal_sum", "G_trace"):
            assert f"smkfac.{layer}.{part}" in names


@pytest.mark.parametrize(
    ("options", "full"),
    [
        # Steps 1 to 10 and every fifth one up to 50 are added, without 20 and 40 where the interval has them.
        ({}, 10 + 18),
        ({"full_refreshes": 3, "inverse_interval": 20}, 3 + 16),
        ({"full_refreshes": 3, "inverse_interval": 1}, 3),
        ({"full_refreshes": 3, "inverse_interval": ms_kfac.FixedInterval(100)}, 3),
    ],
)
def test_refreshes_that_the_warm_up_adds_do_not_count(options: dict[str, object], full: int) -> None:
    optimizer = ms_kfac.SMKFAC(nn.SequentialCell(nn.Dense(5, 3)), 0.01, **options)
    assert optimizer.blocks[0].layer_refresh.full_refreshes == full


STEPS = 4
OPTIONS = {"full_refreshes": 2, "alpha": 0.5, "beta": 0.3, "damping": 0.05}


def trained(
    reduction: str = "mean", scale: float = 1.0, micro_batches: int = 1
) -> tuple[SmallNet, nn.Optimizer]:
    """Two full refreshes, two rank-one refreshes; BatchNorm on its running moments."""
    net = SmallNet()
    net.set_train(False)
    optimizer = ms_kfac.SMKFAC(
        net,
        0.1,
        reduction=reduction,
        loss_scale=scale,
        factor_interval=1,
        inverse_interval=1,
        accumulation_steps=micro_batches,
        **OPTIONS,
    )
    loss = cross_entropy(reduction)
    if micro_batches == 1:
        run(functional_step(net, optimizer, loss, scale), batches(STEPS))
        return net, optimizer
    gradient = gradient_function(net, optimizer, loss, scale / micro_batches)
    for batch in batches(STEPS):
        parts = [gradient(tensor(x), tensor(y))[1] for x, y in split(batch, micro_batches)]
        optimizer(tuple(sum(gradients[1:], gradients[0]) for gradients in zip(*parts)))
    return net, optimizer


def split(batch: Batch, parts: int) -> list[Batch]:
    return list(zip(*(np.split(array, parts) for array in batch)))


@functools.cache
def baseline(mode: int) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    net, optimizer = trained()
    return weights_of(net), {layer: optimizer.factors(layer) for layer in SMALL_NET_LAYERS}


@pytest.mark.parametrize(
    "options",
    [{"reduction": "sum", "scale": 1024.0}, {"micro_batches": 2, "scale": 8.0}],
    ids=["scaled sum", "micro-batches"],
)
def test_same_steps(mode: int, options: dict[str, object]) -> None:
    weights, factors = baseline(mode)
    start = weights_of(SmallNet())
    net, optimizer = trained(**options)
    for name, weight in weights_of(net).items():
        # float32 rounding behind damped inverses of condition 1e2 to 1e3.
        moved = np.abs(weights[name] - start[name]).max()
        assert moved > 1e-4, name
        np.testing.assert_allclose(weight, weights[name], rtol=0, atol=1e-3 * moved, err_msg=name)
    for layer in SMALL_NET_LAYERS:
        for key, factor in optimizer.factors(layer).items():
            expected = factors[layer][key]
            np.testing.assert_allclose(factor, expected, rtol=0, atol=2e-4 * np.abs(expected).max())


def test_first_refreshes_are_those_of_kfac(mode: int) -> None:
    """And the first one after them is not."""
    kfac_net = SmallNet()
    kfac_net.set_train(False)
    common = {"damping": 0.05, "factor_interval": 1, "inverse_interval": 1}
    kfac = functional_step(kfac_net, ms_kfac.KFAC(kfac_net, 0.1, **common), cross_entropy())
    net = SmallNet()
    net.set_train(False)
    step = functional_step(net, ms_kfac.SMKFAC(net, 0.1, **{**common, **OPTIONS}), cross_entropy())
    start = weights_of(net)
    for number, batch in enumerate(batches(3)):
        run(kfac, [batch])
        run(step, [batch])
        for name, weight in weights_of(kfac_net).items():
            moved = np.abs(weight - start[name]).max()
            gap = np.abs(weights_of(net)[name] - weight).max()
            if number < OPTIONS["full_refreshes"]:
                assert gap < 1e-3 * moved, name
            elif name.startswith(SMALL_NET_LAYERS):
                assert gap > 1e-2 * moved, name
