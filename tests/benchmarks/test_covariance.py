"""The times of a layer's statistics, from the command line to the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import mindspore as ms
import pytest

from benchmarks import covariance
from tests.support.native import needs_native


@pytest.fixture
def keeps_mode() -> Iterator[None]:
    mode = ms.get_context("mode")
    yield
    ms.set_context(mode=mode)


@needs_native("kronecker_statistics")
@pytest.mark.usefixtures("keeps_mode")
def test_the_command_times_both_forms_and_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "covariance.json"
    arguments = ["covariance", "--rounds", "1", "--only", "ResNet-20 fc", "--output", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    covariance.main()
    record = json.loads(path.read_text(encoding="utf-8"))
    (layer,) = record["layers"]
    assert layer["layer"] == "ResNet-20 fc"
    for form in ("native", "fallback"):
        low, median, high = layer[f"{form}_ms"]
        assert 0 < low <= median <= high
        assert record["resnet20_ms"][form] == round(median, 2)
    assert layer["difference"] < 1e-5
    assert "all of ResNet-20: native" in capsys.readouterr().out
