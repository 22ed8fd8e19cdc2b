"""Unit-wise and embedding blocks in `nn.TrainOneStepCell`, against the float64 reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle import network
from tests.oracle.mixed import MixedReference
from tests.oracle.momentum import Momentum
from tests.support.bank import tensor
from tests.support.loops import Batch, cell_step, cross_entropy
from tests.support.networks import SmallNet, batches, small_net_reference, weights_of
from tests.support.normalization import TokenNet, token_batches, token_net_reference

STEPS, DAMPING = 3, 0.03
OPTIONS = {
    "damping": DAMPING,
    "factor_decay": 0.4,
    "factor_interval": 1,
    "inverse_interval": 1,
    "normalization": "unit_wise",
    "kl_clip": 1e-2,
}

NETS: dict[str, tuple[Callable[[], nn.Cell], Callable[[], list[network.Module]], Sequence[Batch]]] = {
    "convolution and batch norm": (SmallNet, small_net_reference, batches(STEPS)),
    "embedding and layer norm": (TokenNet, token_net_reference, token_batches(STEPS)),
}


@pytest.mark.parametrize(
    ("name", "reduction"),
    [
        ("convolution and batch norm", "mean"),
        ("embedding and layer norm", "mean"),
        ("embedding and layer norm", "sum"),
    ],
)
def test_steps_equal_the_reference_and_the_loss_falls(mode: int, name: str, reduction: str) -> None:
    build, modules, data = NETS[name]
    net = build()
    start = expected = weights_of(net)
    reference = MixedReference(modules(), Momentum(0.9), DAMPING, factor_decay=0.4, kl_clip=1e-2)
    expected_losses = []
    for x, y in data:
        loss, expected = reference.step(expected, x, y, 0.1)
        expected_losses.append(loss)
    optimizer = ms_kfac.KFAC(net, 0.1, reduction=reduction, **OPTIONS)
    step = cell_step(net, optimizer, cross_entropy(reduction))

    losses = [float(step(tensor(x), tensor(y)).asnumpy()) for x, y in data]

    samples = len(data[0][0]) if reduction == "sum" else 1
    np.testing.assert_allclose(losses, samples * np.array(expected_losses), rtol=1e-4)
    for weight, value in weights_of(net).items():
        moved = np.abs(expected[weight] - start[weight]).max()
        assert moved > 1e-4, weight
        # float32 sums (1e-6) behind damped inverses of condition up to 1e3.
        np.testing.assert_allclose(value, expected[weight], rtol=0, atol=2e-3 * moved, err_msg=weight)
    for module in reference.modules:
        if module.name and len(reference.averages[module.name]) == 1:
            F = reference.averages[module.name][0].value
            found = optimizer.factors(module.name)["F"]
            np.testing.assert_allclose(found, F, rtol=0, atol=1e-3 * np.abs(F).max())

    x, y = data[0]
    more = [float(step(tensor(x), tensor(y)).asnumpy()) for _ in range(6)]
    assert more[-1] < 0.8 * more[0], more
