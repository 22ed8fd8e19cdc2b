"""`optimizer.precondition` leaves training alone."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

import ms_kfac

CLASSES = ["KFAC", "TKFAC", "SKFAC", "EKFAC"]


@pytest.mark.parametrize("name", CLASSES)
def test_steps_compiled_after_it_are_taken(name: str, mode: int, rng: np.random.Generator) -> None:
    net = nn.Dense(4, 3)
    optimizer = getattr(ms_kfac, name)(net, 0.1)
    optimizer.precondition(tuple(Tensor(np.ones(p.shape, np.float32)) for p in optimizer.parameters))
    step = nn.TrainOneStepCell(nn.WithLossCell(net, nn.MSELoss()), optimizer)
    step(
        Tensor(rng.normal(size=(8, 4)).astype(np.float32)),
        Tensor(rng.normal(size=(8, 3)).astype(np.float32)),
    )
    assert int(optimizer.global_step.asnumpy().item()) == 1
    assert optimizer.refreshes()["inverses"] == 1
    assert ms.get_context("mode") == mode
