"""scripts/run_tests.sh: its parts are the whole suite, and a part that fails is named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("failing", ["", "tests/train/test_model.py"])
def test_parts_hold_each_test_file_once(failing: str, tmp_path: Path) -> None:
    """An interpreter that records its arguments stands in for pytest."""
    log, python = tmp_path / "log", tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$2" = pytest ] || exit 0\nprintf "%s\\n" "$*" >>{log}\n'
        f'case "$*" in *"{failing or "none"}"*) exit 1 ;; esac\n'
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/run_tests.sh")],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "MS_KFAC_PYTHON": str(python)},
    )
    calls = [line.split() for line in log.read_text().splitlines()]
    assert all(call[:6] == ["-m", "pytest", "-n", "auto", "--dist", "loadgroup"] for call in calls)
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(calls) == 4 and sorted(file for call in calls for file in call[6:]) == files
    assert done.returncode == (1 if failing else 0)
    assert done.stderr == ("error: tests failed in part 4 of 4.\n" if failing else "")
