"""Compiles and runs every method with MindSpore's GPU backend on a stand-in for the device.

A test fails if an operator has no GPU kernel, or none for a dtype that a step uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ms_kfac.statistics.judge import TOLD
from tests.gpu_backend import stand_in
from tests.gpu_backend.process import run, train_in_process
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


def train(folder: Path, case: str, way: str) -> dict[str, Any]:
    result = train_in_process(folder, case, way)
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
