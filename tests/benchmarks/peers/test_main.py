"""The command that measures the libraries: which failures are results."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.peers import __main__ as command

DESCRIBED = {"commit": "c", "date": "d", "machine": {"processor": "p", "cpus": 2}}


def test_a_library_that_a_signal_ended_has_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [
        SimpleNamespace(returncode=1, stdout="", stderr="RuntimeError: broken\n"),
        SimpleNamespace(returncode=-9, stdout="", stderr=""),
    ]
    monkeypatch.setattr("benchmarks.machine.describe_run", lambda: DESCRIBED)
    monkeypatch.setattr(command.importlib.metadata, "version", lambda package: "1.0")
    monkeypatch.setattr(command.subprocess, "run", lambda *given, **options: results.pop(0))
    with pytest.raises(SystemExit, match="error: ms_kfac kfac, autoencoder was ended by SIGKILL"):
        command.main(["--libraries", "ms_kfac kfac", "--output", str(tmp_path)])
    (line,) = (tmp_path / "peers.csv").read_text().splitlines()[1:]
    assert line.startswith("convnet,ms_kfac kfac,1.0,")
    assert "RuntimeError: broken" in line
