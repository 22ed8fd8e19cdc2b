"""When kernels touch the device, compiled for the host against a stand-in for CUDA's runtime."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def test_device_state(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    program = tmp_path / "test_device_state"
    source = Path(__file__).with_name("test_device_state.cc")
    include = f"-I{source.with_name('recording_cuda')}"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", include]
    subprocess.run(["g++", *flags, str(source), "-o", str(program)], check=True)
    run = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
