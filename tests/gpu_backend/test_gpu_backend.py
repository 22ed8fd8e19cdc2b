"""Compiles and runs every method with MindSpore's GPU backend on a stand-in for the device.

A test fails if an operator has no GPU kernel, or none for a dtype that a step uses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ms_kfac.statistics.judge import TOLD
from tests.gpu_backend import stand_in
from tests.gpu_backend.train import CASES, MODELS, STEPS

REASON = stand_in.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

# Their refreshes depend on floats, which the stand-in does not compute.
DEPENDS_ON_FLOATS = ("SPNGD", "THOR", "policies")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("stand_in")
    stand_in.build(built)
    return built


def run(folder: Path, case: str, way: str) -> subprocess.CompletedProcess[str]:
    """Runs a case in a new process, because MindSpore cannot change its device later."""
    return subprocess.run(
        [sys.executable, "-m", "tests.gpu_backend", str(folder), case, way],
        env={
            **os.environ,
            "MS_KFAC_NATIVE": "0",
            "MS_KFAC_REQUIRE_NATIVE": "0",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        # MindSpore creates folders in its working directory.
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def train(folder: Path, case: str, way: str) -> dict[str, Any]:
    process = run(folder, case, way)
    assert process.returncode == 0, process.stderr[-4000:]
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    # The host reads conditions, the status of solvers, and the judge's numbers for each layer. Reading a
    # whole factor would exceed this.
    assert result["bytes_a_step"] <= 32 + 4 * TOLD * result["layers"]
    return result


@pytest.mark.parametrize("case", CASES)
def test_sink_mode(folder: Path, case: str) -> None:
    result = train(folder, case, "sink")
    steps = 2 * STEPS // MODELS.get(case, {}).get("accumulation_steps", 1)
    if "loss scale" in case:
        # Whether gradients overflow depends on floats.
        assert 0 <= result["statistics"] == result["steps"] <= steps
        return
    assert result["steps"] == steps
    if case not in DEPENDS_ON_FLOATS:
        assert result["statistics"] == steps
        assert result["inverses"] == steps // 2


@pytest.mark.parametrize("case", ["KFAC", "SKFAC"])
def test_pynative_mode(folder: Path, case: str) -> None:
    result = train(folder, case, "pynative")
    assert result["statistics"] == 2 * STEPS
    assert result["inverses"] == STEPS


def test_an_operator_without_a_kernel_is_noticed(folder: Path) -> None:
    process = run(folder, "no kernel", "sink")
    assert process.returncode != 0
    assert "Unsupported op" in process.stderr
