"""The tests selected by `--quick`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def collect(*arguments: str) -> list[str]:
    """The ids of the tests that would run."""
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return [line for line in finished.stdout.splitlines() if "::" in line]


@pytest.fixture(scope="module")
def everything() -> list[str]:
    return collect()


@pytest.fixture(scope="module")
def chosen() -> list[str]:
    return collect("--quick")


def folder_of(test: str) -> str:
    return test.partition("::")[0].rpartition("/")[0]


def test_every_folder_is_touched(everything: list[str], chosen: list[str]) -> None:
    assert {folder_of(test) for test in chosen} == {folder_of(test) for test in everything}


def test_one_case_of_each_test(everything: list[str], chosen: list[str]) -> None:
    assert set(chosen) < set(everything)
    names = [test.partition("[")[0] for test in chosen]
    assert len(names) == len(set(names))


def test_cases_are_taken_in_turn(chosen: list[str]) -> None:
    """Both modes are selected; the first case of every test alone would be graph mode only."""
    assert any("[graph" in test for test in chosen)
    assert any("[pynative" in test for test in chosen)


def test_tests_with_slow_setups_are_skipped(everything: list[str], chosen: list[str]) -> None:
    for file in ("tests/kernels/test_sanitizers.py", "tests/parallel/test_ranks.py"):
        assert any(test.startswith(f"{file}::") for test in everything)
    assert not any("test_sanitizers.py" in test for test in chosen)
    assert {test for test in chosen if "kernels/cuda/" in test} == {
        "tests/kernels/cuda/test_device_state.py::test_device_state",
        "tests/kernels/cuda/test_divisor.py::test_quotients",
    }
    assert [test for test in chosen if "test_ranks.py" in test] == [
        "tests/parallel/test_ranks.py::test_every_case_is_compared"
    ]
