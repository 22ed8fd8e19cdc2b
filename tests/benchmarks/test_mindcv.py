"""The table of mindcv's families, and a command that continues. mindcv itself is not needed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import mindcv

MEASURED = {
    "weights": 1_234_567,
    "share": 97.5,
    "layers": 28,
    "states": "27 verified, 1 no pass",
    "warnings": "",
    "finite": True,
    "momentum_compile_seconds": 10.0,
    "kfac_compile_seconds": 15.0,
    "momentum_step_ms": 50.0,
    "kfac_step_ms": 55.0,
    "kfac_refresh_ms": 200.0,
}


def test_families_are_measured_once_and_tabulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[str] = []

    def run(arguments: list[str], **options: float) -> SimpleNamespace:
        name = arguments[arguments.index("--child") + 1]
        children.append(name)
        if name == "vit":
            raise subprocess.TimeoutExpired(arguments, options["timeout"])
        if name == "volo":
            return SimpleNamespace(returncode=1, stdout="", stderr="ValueError: a | b\n\nstack.cc:1\n")
        return SimpleNamespace(returncode=0, stdout=f"noise\n{json.dumps(MEASURED)}\n", stderr="")

    described = {"commit": "c", "date": "d"}
    monkeypatch.setattr("benchmarks.machine.describe_run", lambda: described)
    monkeypatch.setattr(mindcv.subprocess, "run", run)
    monkeypatch.setattr(mindcv, "find_spec", lambda name: name)
    arguments = ["--output", str(tmp_path), "--time-limit", "60", "--families"]
    mindcv.main([*arguments, "vit,resnet"])
    mindcv.main([*arguments, "vit,resnet,volo"])
    assert children == ["vit", "resnet", "volo"]
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[4:7] == [
        "| resnet | resnet18 | 1,234,567 | 97.5 % | 27 verified, 1 no pass | 1.50 (15.0 s, 10.0 s) | "
        "1.10 (55 ms, 50 ms) | 4.00 (200 ms, 50 ms) |",
        "| vit | vit_b_32_224 |  |  | not finished after 60 s |  |  |  |",
        "| volo | volo_d1 |  |  | ValueError: a / b |  |  |  |",
    ]


def test_a_family_that_a_signal_ended_has_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = SimpleNamespace(returncode=-9, stdout="", stderr="")
    monkeypatch.setattr("benchmarks.machine.describe_run", lambda: {"commit": "c", "date": "d"})
    monkeypatch.setattr(mindcv.subprocess, "run", lambda *given, **options: killed)
    monkeypatch.setattr(mindcv, "find_spec", lambda name: name)
    with pytest.raises(SystemExit, match="error: vit was ended by SIGKILL, as when memory is short"):
        mindcv.main(["--output", str(tmp_path), "--families", "vit"])
    assert (tmp_path / "families.csv").read_text().count("\n") == 1


def test_without_mindcv_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mindcv, "find_spec", lambda name: None)
    assert mindcv.main(["--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == ("error: this benchmark needs mindcv; install ms_kfac[mindcv].\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--families", "lenet"], "--families: must be of bit, cait, .*, got lenet"),
        (["--rounds", "4"], "--rounds: must be at least 5, got 4"),
    ],
)
def test_the_command_line_is_checked(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        mindcv.main(arguments)
    assert re.search(sentence, capsys.readouterr().err)
