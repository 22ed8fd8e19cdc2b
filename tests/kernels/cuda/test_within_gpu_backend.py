"""Whole training steps with the CUDA operators in MindSpore's GPU backend, on the stand-in for a device.

The GPU plugin creates the operators, flattens tuples of inputs, and provides workspaces and outputs. Most
gradients are meaningless there, since the stand-in computes none. So only what does not depend on them is
checked; ``test_within_mindspore.py`` has the numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu_backend import stand_in
from tests.gpu_backend.process import train_in_process
from tests.gpu_backend.train import STEPS

REASON = stand_in.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

OF_ALL = {"commit_statistics", "measure_gradients", "momentum_step"}
USED = {
    "KFAC": {"kronecker_statistics", "kronecker_refresh", "kronecker_precondition"},
    "TKFAC automatic": {"trace_restricted_statistics", "trace_restricted_refresh", "kronecker_precondition"},
    "SMKFAC": {"sherman_morrison_statistics", "sherman_morrison_refresh", "kronecker_precondition"},
    "SKFAC": {"skfac_statistics", "skfac_refresh", "skfac_precondition"},
    "EKFAC": {"eigenbasis_statistics", "eigenbasis_refresh", "eigenbasis_precondition"},
    "unit-wise": {"unit_wise_statistics", "kronecker_statistics"},
    "words": {"embedding_statistics", "unit_wise_statistics"},
    "THOR": {"block_split_refresh", "kronecker_precondition"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("stand_in")
    stand_in.build(built)
    return built


@pytest.mark.parametrize("method", USED)
def test_training_in_sink_mode(method: str, folder: Path, emulated_path: Path) -> None:
    result = train_in_process(folder, method, "sink", emulated_path)
    assert USED[method] | OF_ALL <= set(result["native"])
    check(result, method)


def test_training_in_pynative_mode(folder: Path, emulated_path: Path) -> None:
    check(train_in_process(folder, "KFAC", "pynative", emulated_path), "KFAC")


def check(result: dict[str, Any], method: str) -> None:
    """Every step was taken, kernels committed its statistics, and none refused its arrays."""
    assert result["last_error"] == ""
    assert result["steps"] == result["statistics"] == 2 * STEPS
    # SKFAC's ranks come from MindSpore's operators, which the stand-in does not compute.
    if method != "SKFAC":
        weights = np.array(result["weights"])
        if method == "EKFAC":
            # The third of a layer is that of the moments in a basis, which the stand-in does not compute.
            weights = weights.reshape(-1, 3)[:, :2]
        assert weights.size and (weights > 0).all()
    if method != "THOR":
        assert result["inverses"] == STEPS
