"""Several steps inside one compiled graph, with nothing of Python between them, are the same steps."""

from __future__ import annotations

import contextlib

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.bank import tensor
from tests.support.forms import fallback
from tests.support.loops import cross_entropy, run
from tests.support.methods import fixed_intervals
from tests.support.native import skip_without_native
from tests.support.networks import SmallNet, batches, weights_of

METHODS = {"KFAC": ms_kfac.KFAC, "EKFAC": ms_kfac.EKFAC}
STEPS = 4


class Steps(nn.Cell):
    """Runs a training cell once for each of several batches."""

    def __init__(self, step: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.step = step

    def construct(
        self, images: tuple[ms.Tensor, ...], labels: tuple[ms.Tensor, ...]
    ) -> tuple[ms.Tensor, ...]:
        total = 0.0
        for i in range(len(images)):
            total = total + self.step(images[i], labels[i])
        return total


def build(method: str) -> tuple[SmallNet, ms_kfac.KFAC, nn.Cell]:
    """Statistics at steps 0 and 2 (EKFAC's second moments at 1 too), inverses at 0 and 3."""
    net = SmallNet()
    optimizer = METHODS[method](net, 0.05, damping=0.05, **fixed_intervals(2, 3))
    cell = nn.TrainOneStepCell(nn.WithLossCell(net, cross_entropy()), optimizer)
    cell.set_train()
    return net, optimizer, cell


@pytest.mark.parametrize("form", ["native", "fallback"])
@pytest.mark.parametrize("method", METHODS)
def test_one_graph_of_many_steps(method: str, form: str) -> None:
    if form == "native":
        skip_without_native("commit_statistics")
    data = batches(STEPS)
    start = weights_of(SmallNet())
    ms.set_context(mode=ms.GRAPH_MODE)
    with fallback() if form == "fallback" else contextlib.nullcontext():
        one_by_one, expected, step = build(method)
        run(step, data)
        together, found, step = build(method)
        steps = Steps(step)
        steps.set_train()
        steps(tuple(tensor(x) for x, _ in data), tuple(tensor(y) for _, y in data))
    ms.set_context(mode=ms.PYNATIVE_MODE)

    assert found.refreshes() == expected.refreshes()
    assert found.refreshes()["inverses"] == 2
    # The same kernels on the same numbers; sums of gradients may be taken in another order, which costs
    # float32 ε times the condition of the solves, some hundreds at this damping.
    for name, weight in weights_of(one_by_one).items():
        moved = np.abs(weight - start[name]).max()
        assert moved > 1e-4, f"{name} did not move, so the comparison is empty"
        other = weights_of(together)[name]
        np.testing.assert_allclose(other, weight, rtol=0, atol=1e-4 * moved, err_msg=name)
