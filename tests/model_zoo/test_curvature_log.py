"""The curvature in metrics.jsonl: when it is written, what it holds, and that a resumed run continues it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model_zoo import train
from model_zoo.common.checkpoint.interval import CheckpointInterval
from model_zoo.common.curves import read_metrics
from model_zoo.common.data.shards import Shard
from model_zoo.common.losses import RunningLoss
from model_zoo.common.metrics_log import CurvatureLog, MetricsLog
from model_zoo.common.recipe import load_recipe
from model_zoo.common.run_options import RunOptions, resumed
from model_zoo.common.training import create_monitor, train_recipe
from ms_kfac import CurvatureMonitor
from tests.model_zoo.checkpoint.run_comparison import as_if_killed
from tests.model_zoo.synthetic_data import ROOT

MLP = ROOT / "model_zoo/mlp/mlp_mnist14_kfac.yaml"


def curvature_lines(folder: Path) -> list[dict[str, Any]]:
    """The curvature objects, without times."""
    lines = [line for line in read_metrics(folder) if line["kind"] == "curvature"]
    assert all(line["seconds"] > 0 for line in lines)
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines]


def test_a_run_writes_its_curvature_and_a_resumed_one_goes_on(tmp_path: Path, mnist_folder: Path) -> None:
    recipe = load_recipe(MLP, ["epochs=2", "data.batch_size=8", "optimizer.factor_interval={0: 1}"])
    options = RunOptions(
        "run",
        mnist_folder,
        tmp_path / "run",
        monitor_every=2,
        monitor_eigenvalues=True,
        checkpoint_every=CheckpointInterval(3, "step"),
        keep=9,
        progress=False,
    )
    train_recipe(recipe, options)
    lines = curvature_lines(options.output)
    assert [(line["epoch"], line["step"], line["steps"]) for line in lines] == [
        *((1, 2, 2), (1, 4, 4)),
        *((2, 6, 6), (2, 8, 8), (2, 10, 10)),
    ]
    for line in lines:
        assert line["statistics"] == line["step"] and line["refused"] == line["skipped_steps"] == 0
        assert [layer["verified"] for layer in line["layers"].values()] == ["verified"] * 4
        assert all(layer["damping_ratio"] > 0 for layer in line["layers"].values())
        assert all(set(layer["eigenvalues"]) == {"A", "G"} for layer in line["layers"].values())
    copy = as_if_killed(options.output, tmp_path / "killed", 6)
    train_recipe(recipe, replace(options, output=copy, resume=True))
    assert curvature_lines(copy) == lines


def test_records_have_the_step_of_the_run_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading takes 50 seconds here, which are not seconds of training."""
    now = [0.0]
    monkeypatch.setattr("model_zoo.common.metrics_log.time.perf_counter", lambda: now[0])

    def read(monitor: CurvatureMonitor, step: int) -> dict[str, Any]:
        now[0] += 50.0
        return {"step": step, "steps": 10, "damping": 0.1, "layers": {}}

    monkeypatch.setattr(CurvatureMonitor, "take_record", read)
    log = MetricsLog(tmp_path / "metrics.jsonl", RunningLoss.__new__(RunningLoss), "accuracy", dict, 10)
    log.open()
    arguments = SimpleNamespace(cur_epoch_num=2, cur_step_num=20)
    log.on_train_begin(SimpleNamespace(original_args=lambda: arguments))
    now[0] += 3.0
    CurvatureLog(log, 10, eigenvalues=False).take_record(20)
    now[0] += 4.0
    assert log.clock.seconds == 7.0
    expected = {"epoch": 2, "step": 20, "seconds": 3.0, "steps": 10, "damping": 0.1, "layers": {}}
    assert read_metrics(tmp_path) == [{"kind": "curvature", **expected}]


def test_other_optimizers_and_ranks_write_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log: Any = SimpleNamespace(add_curvature=print)
    options = RunOptions("run", None, tmp_path, monitor_every=5)
    second_order: Any = SimpleNamespace(diagnostics=dict)
    assert create_monitor(options, SimpleNamespace(), log) == []  # type: ignore[arg-type]
    assert capsys.readouterr().out == "--monitor-every: SimpleNamespace has no curvature to write\n"
    assert create_monitor(replace(options, shard=Shard(1, 2)), second_order, log) == []
    assert create_monitor(replace(options, monitor_every=None), second_order, log) == []
    (monitor,) = create_monitor(options, second_order, log)
    assert (monitor.interval, monitor.traces, monitor.eigenvalues) == (5, True, False)


def test_the_options_are_stored_passed_on_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = RunOptions("run", None, tmp_path, monitor_every=5, monitor_eigenvalues=True)
    same = resumed(options.stored(), tmp_path)
    assert (same.monitor_every, same.monitor_eigenvalues) == (5, True)
    # Checkpoints of earlier versions have no such options.
    older = {k: v for k, v in options.stored().items() if not k.startswith("monitor")}
    assert resumed(older, tmp_path).monitor_every is None
    arguments = ["--recipe", str(MLP), "--monitor-every", "5", "--monitor-eigenvalues"]
    parsed = train.parse_arguments(arguments)
    assert train._passed_on(parsed) == ["--monitor-every", "5", "--monitor-eigenvalues"]
    assert (train._given(parsed)["monitor_every"], train._given(parsed)["monitor_eigenvalues"]) == (5, True)
    assert "monitor_eigenvalues" not in train._given(train.parse_arguments(arguments[:2]))
    with pytest.raises(SystemExit, match="2"):
        train.parse_arguments(["--recipe", str(MLP), "--monitor-eigenvalues"])
    assert "--monitor-eigenvalues needs --monitor-every" in capsys.readouterr().err
