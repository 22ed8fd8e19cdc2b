"""The dictionary of diagnostics: what it holds, against matrices that are formed in full."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from ms_kfac.curvature import (
    BlockSplitBlock,
    DiagonalBlock,
    EigenbasisBlock,
    KroneckerBlock,
    ShermanMorrisonBlock,
    SKFACBlock,
    TraceRestrictedBlock,
    TraceRestrictedRootsBlock,
)
from tests.support.bank import tensor
from tests.support.loops import cross_entropy, functional_step, run
from tests.support.methods import METHODS, fixed_intervals
from tests.support.networks import WIDTHS, Perceptron, SmallNet, batches, vectors

DAMPING = 0.3


def trained(
    method: Any = ms_kfac.KFAC, net: nn.Cell | None = None, data: Any = None, **options: Any
) -> ms_kfac.optim.base.SecondOrderOptimizer:
    """An optimizer after three steps."""
    net = Perceptron(WIDTHS) if net is None else net
    optimizer = method(net, 0.05, damping=DAMPING, **options)
    run(functional_step(net, optimizer, cross_entropy()), vectors(3) if data is None else data)
    return optimizer


# One dense layer for each way to keep the statistics of one.
KINDS = {
    "0": KroneckerBlock,
    "1": TraceRestrictedBlock,
    "2": TraceRestrictedRootsBlock,
    "3": partial(ShermanMorrisonBlock, full_refreshes=1),
    "4": SKFACBlock,
    "5": EigenbasisBlock,
    "6": partial(BlockSplitBlock, split=2),
    "7": DiagonalBlock,
}


def test_the_damping_ratio_is_over_the_mean_eigenvalue() -> None:
    net = nn.SequentialCell([nn.Dense(3, 3) for _ in KINDS])
    blocks = {f"^{name}$": block for name, block in KINDS.items()}
    data = [(x[:, :3], labels) for x, labels in vectors(3, samples=2)]
    optimizer = trained(ms_kfac.EKFAC, net, data, blocks=blocks, **fixed_intervals(1, 2))
    before = [parameter.asnumpy().tobytes() for parameter in optimizer.get_parameters()]
    told = optimizer.diagnostics(eigenvalues=True)
    assert before == [parameter.asnumpy().tobytes() for parameter in optimizer.get_parameters()]
    assert told == json.loads(json.dumps(told))
    assert tuple(told["layers"]) == optimizer.layers == tuple(KINDS)
    units = np.eye(12, dtype=np.float32).reshape(-1, 3, 4)
    for block, (name, layer) in zip(optimizer.blocks, told["layers"].items()):
        assert layer["verified"] == "verified"
        matrix = np.stack([block.multiply(tensor(unit)).asnumpy().reshape(-1) for unit in units])
        values = np.linalg.eigvalsh(matrix.astype(np.float64))
        # Sums of 12 products of float32 numbers.
        assert layer["trace"] == pytest.approx(values.sum(), rel=1e-4), name
        assert layer["damping_ratio"] == pytest.approx(DAMPING / values.mean(), rel=1e-4), name
        factors = optimizer.factors(name)
        assert set(layer["eigenvalues"]) == set(layer["traces"])
        for factor, (low, high) in layer["eigenvalues"].items():
            exact = factors[factor].astype(np.float64)
            found = np.sort(exact.ravel() if factor == "s" else np.linalg.eigvals(exact).real)
            np.testing.assert_allclose([low, high], found[[0, -1]], rtol=1e-5, atol=1e-6 * found[-1])
            # SMKFAC keeps the whole factors of its full refreshes, and tracks their diagonals.
            diagonal = factors.get(f"{factor}_diagonal", found)
            assert layer["traces"][factor] == pytest.approx(float(diagonal.sum()), rel=1e-4)


def test_automatic_damping_has_no_ratio() -> None:
    method, options = METHODS["TKFAC automatic"]
    told = trained(method, **options).diagnostics()["layers"]
    assert all(layer["damping_ratio"] is None and layer["trace"] > 0 for layer in told.values())


def test_counts_are_those_of_the_optimizer(mode: int) -> None:
    optimizer = trained(kl_clip=1e-9, **fixed_intervals(1, 2))
    told = optimizer.diagnostics(traces=False)
    layer = {"verified": "verified", "preconditioned": True}
    sizes = {name: block.bytes() for name, block in zip(optimizer.layers, optimizer.blocks)}
    assert told == {
        "steps": 3,
        "damping": pytest.approx(DAMPING),
        "clip_factor": optimizer.clip_factor,
        "statistics": 3,
        "inverses": 2,
        "refused": 0,
        "skipped_steps": 0,
        "bytes": sum(sizes.values()),
        "layers": {name: {**layer, "bytes": size} for name, size in sizes.items()},
    }
    assert 0 < told["clip_factor"] < 0.5
    text = optimizer.summary()
    rows = [line for line in text.splitlines() if line.startswith("layers.")]
    for row, (name, size) in zip(rows, sizes.items()):
        assert row.startswith(name) and row.endswith("verified") and f"  {size / 1024:.0f}  " in row
    assert f"{told['bytes'] / 2**20:.1f} MiB of statistics" in text


def test_every_kind_of_block_is_told() -> None:
    """A convolution, a grouped one with two factors of each, BatchNorm, and one curvature per weight."""
    net = SmallNet().set_train()
    optimizer = trained(net=net, data=batches(3), normalization="unit_wise", blocks={"head": DiagonalBlock})
    told = optimizer.diagnostics(eigenvalues=True)["layers"]
    assert {name: set(layer["traces"]) for name, layer in told.items()} == {
        "conv1": {"A", "G"},
        "conv2": {"A", "G"},
        "norm": {"F"},
        "head": {"s"},
    }
    for name in ("norm", "head"):
        (trace,) = told[name]["traces"].values()
        assert told[name]["trace"] == pytest.approx(trace, rel=1e-5)
    for layer in told.values():
        assert layer["damping_ratio"] > 0
        assert all(low <= high and high > 0 for low, high in layer["eigenvalues"].values())


def test_a_layer_without_statistics_has_no_ratio() -> None:
    told = ms_kfac.KFAC(Perceptron(WIDTHS), 0.1).diagnostics(eigenvalues=True)["layers"]
    for layer in told.values():
        assert (layer["trace"], layer["damping_ratio"], layer["eigenvalues"]) == (0.0, None, {})
        assert layer["traces"] == {"A": 0.0, "G": 0.0}


def test_factors_with_nan_have_no_eigenvalues() -> None:
    optimizer = ms_kfac.KFAC(Perceptron(WIDTHS), 0.1)
    block = optimizer.blocks[0]
    block.G_sum.set_data(tensor(np.full(block.G_sum.shape, np.nan)))
    found = optimizer.diagnostics(eigenvalues=True)["layers"]["layers.0"]["eigenvalues"]
    assert found["G"] == [None, None]


def strict_json(value: Any) -> Any:
    """The value, written and read by readers that know no NaN, as most outside Python."""
    return json.loads(json.dumps(value, allow_nan=False))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_not_finite_is_none(tmp_path: Path) -> None:
    """After a skipped step, and of statistics with NaN."""
    net = Perceptron(WIDTHS)
    optimizer = ms_kfac.KFAC(net, 0.1, **fixed_intervals(1, 1))
    x, y = vectors(1)[0]
    run(functional_step(net, optimizer, cross_entropy()), [(x, y), (x * np.nan, y)])
    assert np.isnan(optimizer.clip_factor)
    block = optimizer.blocks[0]
    block.G_sum.set_data(tensor(np.full(block.G_sum.shape, np.nan)))
    told = optimizer.diagnostics(eigenvalues=True)
    assert (told["clip_factor"], told["skipped_steps"]) == (None, 1)
    first, second = (told["layers"][f"layers.{i}"] for i in range(2))
    assert (first["trace"], first["damping_ratio"], first["traces"]["G"]) == (None, None, None)
    assert second["trace"] > 0
    assert strict_json(told) == told

    monitor = ms_kfac.CurvatureMonitor(1, traces=True, path=tmp_path / "curvature.jsonl", write=None)
    monitor.on_train_begin(
        SimpleNamespace(original_args=lambda: SimpleNamespace(optimizer=optimizer, cur_step_num=0))
    )
    record = monitor.take_record(2)
    (line,) = (tmp_path / "curvature.jsonl").read_text().splitlines()
    assert "NaN" not in line
    assert json.loads(line) == record


def test_a_read_before_the_first_step_fixes_no_rank() -> None:
    optimizer = ms_kfac.SKFAC(Perceptron(WIDTHS), 0.05)
    optimizer.diagnostics(eigenvalues=True)
    assert [block.ranks.chosen for block in optimizer.blocks] == [None, None]


def test_arguments_are_checked() -> None:
    optimizer = ms_kfac.KFAC(Perceptron(WIDTHS), 0.1)
    with pytest.raises(TypeError, match="eigenvalues must be True or False, got 1"):
        optimizer.diagnostics(eigenvalues=1)
    with pytest.raises(ValueError, match="eigenvalues must be False with traces=False, got True"):
        optimizer.diagnostics(traces=False, eigenvalues=True)
