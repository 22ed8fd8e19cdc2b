"""MS_KFAC_REQUIRE_NATIVE: no import without native kernels, and no test that is skipped for want of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import native
from tests.support.native import has_native, needs_native, skip_without_native

ROOT = Path(__file__).resolve().parents[2]


def import_package(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import ms_kfac"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_import_fails_where_kernels_are_required_and_not_in_use() -> None:
    finished = import_package(MS_KFAC_REQUIRE_NATIVE="1", MS_KFAC_NATIVE="0")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        "RuntimeError: MS_KFAC_REQUIRE_NATIVE=1, but the CPU's native kernels are not in use "
        "(MS_KFAC_NATIVE=0): reinstall the package with g++ and scipy-openblas32 available, or set "
        "MS_KFAC_REQUIRE_NATIVE=0 to run without them"
    )


@needs_native("momentum_step")
def test_the_import_works_where_they_are_in_use() -> None:
    finished = import_package(MS_KFAC_REQUIRE_NATIVE="1", MS_KFAC_NATIVE="1")
    assert finished.returncode == 0, finished.stderr


def test_the_import_works_where_they_are_not_required() -> None:
    finished = import_package(MS_KFAC_REQUIRE_NATIVE="0", MS_KFAC_NATIVE="0")
    assert finished.returncode == 0, finished.stderr


def test_another_value_is_refused() -> None:
    finished = import_package(MS_KFAC_REQUIRE_NATIVE="yes")
    assert "ValueError: MS_KFAC_REQUIRE_NATIVE must be 0 or 1, got 'yes'" in finished.stderr


def test_tests_without_a_kernel_are_skipped_unless_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "is_native", lambda operator: False)
    monkeypatch.delenv("MS_KFAC_REQUIRE_NATIVE", raising=False)
    assert not has_native("momentum_step")
    assert needs_native("momentum_step").args == (True,)
    with pytest.raises(pytest.skip.Exception, match="momentum_step"):
        skip_without_native("momentum_step")
    monkeypatch.setenv("MS_KFAC_REQUIRE_NATIVE", "1")
    for use in (has_native, needs_native, skip_without_native):
        with pytest.raises(RuntimeError, match="momentum_step has no native kernel here"):
            use("momentum_step")
