"""Which normalisation layers and embedding tables are preconditioned, and what tapping does not change."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import cross_entropy, functional_step, run
from tests.support.networks import SmallNet, batches, weights_of
from tests.support.normalization import TokenNet, token_batches


class OwnBatchNorm(nn.BatchNorm2d):
    """A subclass with a `construct` of its own."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return 2.0 * super().construct(x)


class OwnLayerNorm(nn.LayerNorm):
    """A subclass with a `construct` of its own."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return 2.0 * super().construct(x)


class OwnEmbedding(nn.Embedding):
    """A subclass with a `construct` of its own."""

    def construct(self, ids: ms.Tensor) -> ms.Tensor:
        return 2.0 * super().construct(ids)


class Zoo(nn.Cell):
    """Layers that are only looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = nn.BatchNorm2d(2)
        self.deep = nn.BatchNorm3d(2)
        self.moving = nn.BatchNorm2d(2, use_batch_statistics=False)
        self.own_batch = OwnBatchNorm(2)
        self.layer = nn.LayerNorm((3,))
        self.own_layer = OwnLayerNorm((3,))
        self.axes = nn.LayerNorm((2, 3), begin_norm_axis=2, begin_params_axis=1)
        self.samples = nn.LayerNorm((2, 3), begin_norm_axis=0, begin_params_axis=0)
        self.half = nn.LayerNorm((3,), dtype=ms.float16)
        self.skipped = nn.LayerNorm((3,))
        self.embed = nn.Embedding(4, 3)
        self.own_embed = OwnEmbedding(4, 3)
        self.tied = nn.Embedding(4, 3)
        self.out = nn.Dense(3, 4, has_bias=False)
        self.out.weight = self.tied.embedding_table
        self.group = nn.GroupNorm(1, 2)


REASONS = {
    "moving": "use_batch_statistics",
    "own_batch": "construct",
    "own_layer": "construct",
    "axes": "begin_params_axis",
    "samples": "across samples",
    "skipped": "skip",
    "own_embed": "construct",
    "tied": "tied to out",
    "out": "tied to tied",
}
UNIT_WISE = ("batch", "deep.bn2d", "layer", "half", "group")


@pytest.mark.parametrize("normalization", [None, "first_order", "unit_wise"])
def test_summary_shows_normalization_blocks_and_reasons(normalization: str | None) -> None:
    options = {} if normalization is None else {"normalization": normalization}
    with pytest.warns(UserWarning, match="of the weights have no curvature"):
        optimizer = ms_kfac.KFAC(Zoo(), 0.1, skip=("skipped",), **options)
    rows = optimizer.summary(every_layer=True).splitlines()
    split = next(i for i, row in enumerate(rows) if "cells first-order:" in row)
    preconditioned = {row.split()[0]: row for row in rows[7:split]}
    assert "diagonal-Kronecker" in preconditioned.pop("embed")
    expected = dict(REASONS)
    if normalization == "unit_wise":
        assert tuple(preconditioned) == UNIT_WISE
        assert all("unit-wise" in row and "x F 2" in row for row in preconditioned.values())
    else:
        assert not preconditioned
        expected.update(dict.fromkeys(UNIT_WISE, "normalization='unit_wise' preconditions it"))
    for name, words in expected.items():
        (reason,) = [row for row in rows[split + 1 :] if f" {name}." in row.partition("(")[0]]
        assert words in reason, reason


def test_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="normalization must be one of 'first_order', 'unit_wise', got 'x'"):
        ms_kfac.KFAC(TokenNet(), 0.1, normalization="x")


def test_evaluation_does_not_change_statistics(mode: int) -> None:
    """Without a backward pass nothing is counted; with one, batch normalisation in evaluation isn't."""
    x, y = batches(1)[0]
    net = SmallNet()
    optimizer = ms_kfac.KFAC(net, 0.1, normalization="unit_wise", factor_interval=1, inverse_interval=1)
    net.set_train(False)
    net(tensor(x))
    for layer in ("conv1", "norm"):
        for factor in optimizer.factors(layer).values():
            np.testing.assert_array_equal(factor, np.zeros_like(factor))
    before = weights_of(net)
    with pytest.warns(UserWarning, match="no backward pass reached the statistics of layer norm"):
        run(functional_step(net, optimizer, nn.CrossEntropyLoss()), [(x, y)])
    assert np.abs(optimizer.factors("conv1")["A"]).max() > 0
    np.testing.assert_array_equal(optimizer.factors("norm")["F"], np.zeros((4, 2, 2)))
    assert not np.array_equal(weights_of(net)["norm.gamma"], before["norm.gamma"])
    net.set_train(True)
    run(functional_step(net, optimizer, nn.CrossEntropyLoss()), [(x, y)])
    assert np.abs(optimizer.factors("norm")["F"]).min() > 0


def test_samples_are_counted_behind_a_batch_norm_in_evaluation() -> None:
    """With reduction="sum" the first layer counts samples, unless it is one that evaluation switches off."""
    rng = np.random.default_rng(0)
    data = [(rng.standard_normal((8, 4)).astype(np.float32), rng.integers(0, 3, 8).astype(np.int32))]
    table = tensor(rng.standard_normal((3, 4)))
    results = []
    for reduction in ("mean", "sum"):
        net = nn.SequentialCell(nn.BatchNorm1d(4), nn.Dense(4, 3, table, "zeros"))
        net.set_train(False)
        options = {"normalization": "unit_wise", "reduction": reduction, "kl_clip": None, "verify": "off"}
        optimizer = ms_kfac.KFAC(net, 0.1, **options)
        run(functional_step(net, optimizer, cross_entropy(reduction)), data)
        results.append(weights_of(net))
    for name, weight in results[0].items():
        # float32 rounding behind inverses of condition below 1e3.
        np.testing.assert_allclose(results[1][name], weight, rtol=1e-4, atol=1e-5, err_msg=name)


def test_checkpoints_and_outputs_of_tapped_and_untapped_nets(mode: int, tmp_path: Path) -> None:
    ids = tensor(token_batches(1)[0][0])
    plain, tapped = TokenNet(seed=1), TokenNet(seed=2)
    ms_kfac.KFAC(tapped, 0.1, normalization="unit_wise")
    ms.save_checkpoint(plain, str(tmp_path / "plain.ckpt"))
    missing, unexpected = ms.load_param_into_net(tapped, ms.load_checkpoint(str(tmp_path / "plain.ckpt")))
    assert not missing
    assert not unexpected
    assert [p.name for p in tapped.get_parameters()] == [p.name for p in plain.get_parameters()]
    np.testing.assert_array_equal(tapped(ids).asnumpy(), plain(ids).asnumpy())
