"""With every layer skipped the optimizer is `nn.Momentum`, to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.loops import train_by
from tests.support.networks import SmallNet, batches, weights_of

STEPS = 4


def groups(net: nn.Cell) -> list[dict[str, object]]:
    """Two groups with a learning rate and a weight decay of their own, in an order of their own."""
    norm = [p for p in net.trainable_params() if "norm" in p.name]
    rest = [p for p in net.trainable_params() if "norm" not in p.name]
    return [
        {"params": rest, "weight_decay": 0.05},
        {"params": norm, "lr": 0.02},
        {"order_params": net.trainable_params()},
    ]


# What `nn.Momentum` gets as learning rate and keywords; for the optimizer `params` is a keyword as well.
CASES: dict[str, Callable[[], tuple[object, dict[str, object]]]] = {
    "plain": lambda: (0.1, {}),
    "weight decay": lambda: (0.1, {"weight_decay": 0.05}),
    "list": lambda: ([0.1, 0.08, 0.05, 0.02], {}),
    "schedule": lambda: (nn.ExponentialDecayLR(0.1, 0.5, 2), {}),
    "groups": lambda: (0.1, {"grouped": True, "weight_decay": 0.01}),
}


@pytest.mark.filterwarnings("ignore:KFAC. no layer of the network is preconditioned")
@pytest.mark.parametrize("case", CASES)
def test_equals_momentum_exactly(mode: int, case: str) -> None:
    data = batches(STEPS)
    results = []
    for kind in ("kfac", "momentum"):
        net = SmallNet()
        learning_rate, options = CASES[case]()
        params = groups(net) if options.pop("grouped", False) else net.trainable_params()
        optimizer: nn.Optimizer
        if kind == "kfac":
            optimizer = ms_kfac.KFAC(net, learning_rate, params=params, momentum=0.8, skip=(".*",), **options)
        else:
            optimizer = nn.Momentum(params, learning_rate, 0.8, **options)
        train_by("cell", net, optimizer, data)
        results.append(weights_of(net, np.float32))
    for name, weight in results[0].items():
        np.testing.assert_array_equal(weight, results[1][name], err_msg=name)
