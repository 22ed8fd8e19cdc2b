"""Division by Divisor, compiled for the host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cuda_emulator import EMULATOR


def test_quotients(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    program = tmp_path / "test_divisor"
    source = Path(__file__).with_name("test_divisor.cc")
    subprocess.run(
        ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", f"-I{EMULATOR}", str(source), "-o", str(program)],
        check=True,
    )
    run = subprocess.run([str(program)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
