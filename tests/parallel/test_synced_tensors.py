"""The synced tensors of curvature blocks: statistics that add up over ranks, and what a refresh sends."""

from __future__ import annotations

from functools import cache
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from tests.support.bank import randomise
from tests.support.loops import cross_entropy, gradient_function
from tests.support.methods import METHODS

DAMPING = 0.05
ADDITIVE = [name for name in METHODS if name != "SKFAC"]


class EveryLayer(nn.Cell):
    """An embedding, a grouped convolution, a layer normalization and a dense layer, per sample."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(1)
        self.table = nn.Embedding(7, 4)
        self.conv = nn.Conv2d(4, 4, 2, pad_mode="valid", group=2, has_bias=True)
        self.norm = nn.LayerNorm((8,))
        self.head = nn.Dense(8, 3)
        self.flatten = nn.Flatten()
        self.activation = nn.Tanh()
        randomise(self, rng, 0.5)

    def construct(self, ids: ms.Tensor) -> ms.Tensor:
        x = ops.reshape(ops.transpose(self.table(ids), (0, 2, 1)), (-1, 4, 2, 3))
        return self.head(self.norm(self.flatten(self.activation(self.conv(x)))))


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.integers(0, 7, (6, 6)).astype(np.int32), rng.integers(0, 3, 6).astype(np.int32)


def after_statistics(name: str, rows: slice | None) -> Any:
    """An optimizer with the statistics of these rows of the batch; None: without statistics."""
    method, options = METHODS[name]
    if name == "SMKFAC":
        options = {**options, "full_refresh_interval": 1}
    net = EveryLayer()
    optimizer = method(net, 0.1, damping=DAMPING, normalization="unit_wise", **options)
    x, y = batch()
    if rows is not None:
        gradient_function(net, optimizer, cross_entropy())(ms.Tensor(x[rows]), ms.Tensor(y[rows]))
        measured = ms.Tensor(np.zeros((len(optimizer.blocks), 3), np.float32))
        optimizer.commit(ms.Tensor(1, ms.int32), ms.Tensor([1.0, 1.0], ms.float32), measured)
    return optimizer


# For tests that write nothing.
statistics_of_all = cache(lambda name: after_statistics(name, slice(6)))


def values(block: Any) -> dict[str, np.ndarray]:
    """All but what is staged."""
    parameters = block.parameters_dict().values()
    return {p.name: p.asnumpy().copy() for p in parameters if not p.name.endswith(("_batch", ".record"))}


@pytest.mark.parametrize("name", ADDITIVE)
def test_statistics_of_parts_add_up(name: str) -> None:
    whole = statistics_of_all(name)
    first, second = after_statistics(name, slice(4)), after_statistics(name, slice(4, 6))
    assert {block.kind for block in whole.blocks} >= {"unit-wise", "diagonal-Kronecker"}
    for blocks in zip(whole.blocks, first.blocks, second.blocks):
        for shares in zip(*(block.tensors_to_reduce() for block in blocks)):
            expected, *parts = (share.parameter.asnumpy() for share in shares)
            scale = np.abs(expected).max()
            assert scale > 0, shares[0].parameter.name
            # Sums of fewer than 100 float32 products in another order.
            np.testing.assert_allclose(
                parts[0] + parts[1],
                expected,
                rtol=0,
                atol=1e-5 * scale,
                err_msg=shares[0].parameter.name,
            )


@pytest.mark.parametrize("name", ADDITIVE)
def test_tensors_to_reduce_are_what_a_batch_writes(name: str) -> None:
    before, after = after_statistics(name, None), statistics_of_all(name)
    for old, new in zip(before.blocks, after.blocks):
        earlier = values(old)
        written = {key for key, value in values(new).items() if not np.array_equal(value, earlier[key])}
        assert written == {share.parameter.name for share in new.tensors_to_reduce()}
        assert {id(s.parameter) for s in new.current_shares()} <= {
            id(s.parameter) for s in new.tensors_to_reduce()
        }


@pytest.mark.parametrize("name", ADDITIVE)
def test_tensors_declared_symmetric_are_symmetric(name: str) -> None:
    optimizer = after_statistics(name, slice(6))
    for block in optimizer.blocks:
        block.refresh(ms.Tensor(DAMPING, ms.float32))
        shares = block.tensors_to_reduce() + block.tensors_to_broadcast() + block.refresh_state()
        assert any(share.symmetric for share in shares)
        for share in shares:
            if share.symmetric:
                value = share.parameter.asnumpy()
                # Both halves of an inverse come from one Cholesky decomposition, rounded apart.
                np.testing.assert_allclose(
                    value,
                    np.swapaxes(value, -1, -2),
                    rtol=0,
                    atol=1e-5 * np.abs(value).max(),
                    err_msg=share.parameter.name,
                )


@pytest.mark.parametrize("name", ADDITIVE)
def test_applying_a_remote_refresh_gives_the_state_of_its_owner(name: str) -> None:
    """Three refreshes: SMKFAC's are full, rank one with sums that begin anew, full without any."""
    owner, other = after_statistics(name, slice(6)), after_statistics(name, slice(6))
    for refresh in range(3):
        for here, there in zip(owner.blocks, other.blocks):
            before = values(there)
            here.refresh(ms.Tensor(DAMPING * (refresh + 1), ms.float32))
            pairs = zip(
                here.tensors_to_broadcast() + here.refresh_state(),
                there.tensors_to_broadcast() + there.refresh_state(),
            )
            for own, copy in pairs:
                ops.assign(copy.parameter, ms.Tensor(own.parameter.asnumpy().copy()))
            there.apply_remote_refresh()
            there.apply_remote_refresh()
            expected = values(here)
            assert refresh > 0 or any(not np.array_equal(expected[key], before[key]) for key in before)
            for key, value in values(there).items():
                np.testing.assert_array_equal(value, expected[key], err_msg=key)


@pytest.mark.parametrize("name", ["EKFAC", "SMKFAC"])
def test_refresh_state_alone_gives_the_traces_and_products_of_the_owner(name: str) -> None:
    """With preconditioned gradients exchanged; Levenberg-Marquardt and TraceChange read them on all ranks."""
    owner, other = after_statistics(name, slice(6)), after_statistics(name, slice(6))
    for layer, here, there in zip(owner._layers, owner.blocks, other.blocks):
        here.refresh(ms.Tensor(DAMPING, ms.float32))
        for own, copy in zip(here.refresh_state(), there.refresh_state()):
            ops.assign(copy.parameter, ms.Tensor(own.parameter.asnumpy().copy()))
        there.apply_remote_refresh()
        weights = layer.parameters()
        matrix = here.weight_matrix(weights[0], weights[-1])
        for found, value in (
            (there.trace(), here.trace()),
            (there.multiply(matrix), here.multiply(matrix)),
        ):
            expected = value.asnumpy()
            assert np.abs(expected).max() > 0, layer.name
            np.testing.assert_array_equal(found.asnumpy(), expected, err_msg=layer.name)


def test_statistics_that_are_not_additive_have_a_reason() -> None:
    assert ms_kfac.SKFAC(EveryLayer(), 0.1).blocks[-1].not_additive_reason
    assert ms_kfac.TKFAC(EveryLayer(), 0.1, ema="paper").blocks[-1].not_additive_reason
    for name in ADDITIVE:
        method, options = METHODS[name]
        assert not any(block.not_additive_reason for block in method(EveryLayer(), 0.1, **options).blocks)
