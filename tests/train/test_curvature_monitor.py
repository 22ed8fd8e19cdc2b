"""The monitor: what its records hold, when they are taken, where they go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.loops import as_dataset, cross_entropy
from tests.support.methods import fixed_intervals
from tests.support.networks import SmallNet, batches


def train(monitor: ms_kfac.CurvatureMonitor, method: Any = ms_kfac.KFAC, **options: Any) -> nn.Optimizer:
    net = SmallNet()
    optimizer = method(net, 0.05, **{"damping": [0.4, 0.3, 0.2, 0.1], **options})
    model = ms.Model(net, cross_entropy(), optimizer)
    model.train(1, as_dataset(batches(5)), callbacks=[monitor], dataset_sink_mode=False)
    return optimizer


def test_records_are_taken_every_interval(mode: int, tmp_path: Path) -> None:
    lines: list[str] = []
    monitor = ms_kfac.CurvatureMonitor(2, write=lines.append, path=tmp_path / "curvature.jsonl")
    # So small a trust region that the clip is active in every step.
    optimizer = train(monitor, kl_clip=1e-9, **fixed_intervals(1, 2))
    assert [record["step"] for record in monitor.records] == [2, 4]
    # Of the step that comes after 2 and after 4.
    np.testing.assert_allclose([record["damping"] for record in monitor.records], [0.2, 0.1], rtol=1e-6)
    assert all(0 < record["clip_factor"] < 0.5 for record in monitor.records)
    assert monitor.records[0]["statistics"] == 2
    assert monitor.records[0]["refused"] == 0
    written = (tmp_path / "curvature.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == monitor.records
    assert lines[0].startswith("step 2, damping 0.2, clip_factor ")
    assert "conv1.A" not in monitor.records[0]
    assert optimizer.clip_factor < 0.5


def test_traces_are_those_of_the_factors() -> None:
    monitor = ms_kfac.CurvatureMonitor(5, traces=True, write=None)
    optimizer = train(monitor)
    (record,) = monitor.records
    for layer in optimizer.layers:
        for letter, factor in optimizer.factors(layer).items():
            # A grouped convolution has a factor per group.
            trace = np.trace(factor, axis1=-2, axis2=-1).sum()
            assert record[f"{layer}.{letter}"] == pytest.approx(float(trace), rel=1e-5)


def test_traces_are_of_factors_alone() -> None:
    """EKFAC's bases are square, too."""
    monitor = ms_kfac.CurvatureMonitor(5, traces=True, write=None)
    train(monitor, ms_kfac.EKFAC)
    traced = {name.rpartition(".")[2] for name in monitor.records[0] if "." in name}
    assert traced == {"A", "G"}


def test_the_damping_of_a_schedule_is_read_between_steps(mode: int) -> None:
    adaptive = ms_kfac.LevenbergMarquardt(0.7)
    schedule = nn.ExponentialDecayLR(0.5, 0.1, 1)
    for damping, expected in ((0.2, 0.2), (adaptive, 0.7), (schedule, 0.5)):
        optimizer = ms_kfac.KFAC(SmallNet(), 0.05, damping=damping)
        assert optimizer.current_damping == pytest.approx(expected)


def test_without_an_active_clip_the_factor_is_one() -> None:
    assert train(ms_kfac.CurvatureMonitor(write=None), kl_clip=1e9).clip_factor == 1.0
    assert train(ms_kfac.CurvatureMonitor(write=None), kl_clip=None).clip_factor == 1.0


def test_other_optimizers_are_refused() -> None:
    net = SmallNet()
    model = ms.Model(net, cross_entropy(), nn.Momentum(net.trainable_params(), 0.1, 0.9))
    with pytest.raises(TypeError, match="needs an optimizer of ms_kfac as the model's, got Momentum"):
        model.train(
            1, as_dataset(batches(1)), callbacks=[ms_kfac.CurvatureMonitor()], dataset_sink_mode=False
        )
    with pytest.raises(ValueError, match="interval must be an int of at least 1, got 0"):
        ms_kfac.CurvatureMonitor(0)
