"""The monitor: what its records hold, when they are taken, where they go."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.train import SummaryCollector, summary_pb2

import ms_kfac
from tests.support.loops import as_dataset, cross_entropy
from tests.support.methods import fixed_intervals
from tests.support.networks import SmallNet, batches


def train(
    monitor: ms_kfac.CurvatureMonitor, method: Any = ms_kfac.KFAC, more: Any = (), **options: Any
) -> nn.Optimizer:
    net = SmallNet()
    optimizer = method(net, 0.05, **{"damping": [0.4, 0.3, 0.2, 0.1], **options})
    model = ms.Model(net, cross_entropy(), optimizer)
    model.train(1, as_dataset(batches(5)), callbacks=[monitor, *more], dataset_sink_mode=False)
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
    counts = "statistics 2, inverses 1, refused 0, skipped_steps 0"
    assert re.match(rf"step 2, damping 0.2, clip_factor \S+, {counts}, seconds_per_step \S+$", lines[0])
    assert set(monitor.records[0]["layers"]["conv1"]) == {"verified", "preconditioned", "bytes"}
    assert optimizer.clip_factor < 0.5


def test_a_record_is_the_dictionary_of_the_optimizer() -> None:
    """With all that is asked for, and nothing else."""
    lines: list[str] = []
    monitor = ms_kfac.CurvatureMonitor(5, traces=True, eigenvalues=True, write=lines.append)
    optimizer = train(monitor)
    (record,) = monitor.records
    assert record.pop("step") == 5
    assert record.pop("seconds_per_step") > 0
    assert record == optimizer.diagnostics(eigenvalues=True)
    ratios = [layer["damping_ratio"] for layer in record["layers"].values()]
    assert lines[0].endswith(f", damping_ratio {min(ratios):.4g} to {max(ratios):.4g}")
    assert set(record["layers"]["conv1"]) == {
        *("verified", "preconditioned", "bytes"),
        *("trace", "damping_ratio", "traces", "eigenvalues"),
    }


def test_seconds_leave_out_compilation_reading_and_what_is_between_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps take 1 second, the first one 100, a read 1000, and an evaluation 10,000."""
    now = [0.0]
    monkeypatch.setattr("ms_kfac.train.curvature_monitor.time.perf_counter", lambda: now[0])
    optimizer = ms_kfac.KFAC(nn.SequentialCell(nn.Dense(2, 2)), 0.1)

    def read(**options: bool) -> dict[str, Any]:
        now[0] += 1000.0
        return {"damping": 0.1, "layers": {}}

    monkeypatch.setattr(optimizer, "diagnostics", read)
    lines: list[str] = []
    monitor = ms_kfac.CurvatureMonitor(2, write=lines.append)
    arguments = SimpleNamespace(optimizer=optimizer, cur_step_num=0)
    context = SimpleNamespace(original_args=lambda: arguments)
    monitor.on_train_begin(context)
    for _ in range(2):
        monitor.on_train_epoch_begin(context)
        for _ in range(3):
            arguments.cur_step_num += 1
            now[0] += 100.0 if arguments.cur_step_num == 1 else 1.0
            monitor.on_train_step_end(context)
        now[0] += 10_000.0
    assert [record["seconds_per_step"] for record in monitor.records] == [1.0, 1.0, 1.0]
    assert lines[0] == "step 2, damping 0.1, seconds_per_step 1"
    # A first step that is a record's, too, is not timed.
    every = ms_kfac.CurvatureMonitor(1, write=lines.append)
    every.on_train_begin(context)
    every.on_train_epoch_begin(context)
    arguments.cur_step_num += 1
    every.on_train_step_end(context)
    assert every.records[0]["seconds_per_step"] is None
    assert lines[-1] == "step 7, damping 0.1"


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE], indirect=True)
def test_a_summary_collector_writes_the_numbers(mode: int, tmp_path: Path) -> None:
    monitor = ms_kfac.CurvatureMonitor(2, traces=True, write=None, summary=True)
    collector = SummaryCollector(str(tmp_path), collect_freq=2, keep_default_action=False)
    train(monitor, more=[collector])
    found = summary_scalars(tmp_path)
    for record in monitor.records:
        step = record["step"]
        assert found[step, "curvature/damping"] == pytest.approx(record["damping"])
        assert found[step, "curvature/statistics"] == record["statistics"]
        for layer, numbers in record["layers"].items():
            for name in ("trace", "damping_ratio"):
                assert found[step, f"curvature/{name}/{layer}"] == pytest.approx(numbers[name])
    assert {step for step, _ in found} == {2, 4}


def summary_scalars(folder: Path) -> dict[tuple[int, str], float]:
    """The scalars of a summary file by step and tag: records of length, checksum, event and checksum."""
    (file,) = folder.glob("*_MS")
    content, start, found = file.read_bytes(), 0, {}
    while start < len(content):
        (length,) = struct.unpack("<Q", content[start : start + 8])
        event = summary_pb2.Event()
        event.ParseFromString(content[start + 12 : start + 12 + length])
        found.update({(event.step, value.tag): value.scalar_value for value in event.summary.value})
        start += length + 16
    return found


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
    with pytest.raises(ValueError, match="eigenvalues must be False with traces=False, got True"):
        ms_kfac.CurvatureMonitor(eigenvalues=True)
