"""Tests the records of parts that run other programs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu import sanitizer
from benchmarks.gpu.parts import ROOT
from benchmarks.gpu.record import read_record

TESTS = """
import pytest

def test_passes():
    pass

def test_fails():
    assert 1 + 1 == 3, "sums are wrong"

@pytest.mark.skip(reason="no GPU")
def test_is_skipped():
    pass

def test_lacks_a_fixture(gpu):
    pass
"""


def test_every_test_that_did_not_pass_is_recorded_with_its_message(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu.kernel_tests", "--record", str(path)]
    # Without the file that can't be collected, which would end the run before any test.
    for text, status in ((TESTS, 1), ("import a_module_that_is_not_there", 2)):
        folder = tmp_path / f"status_{status}"
        folder.mkdir()
        (folder / "test_some.py").write_text(text)
        own = [*command, "--folder", str(folder)]
        done = subprocess.run(own, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
    lines = read_record(path)
    counts = next(line["counts"] for line in lines if line["what"] == "tests")
    assert counts == {"passed": 1, "failed": 2, "skipped": 1}
    failures = {line["of"].rsplit("::")[-1]: line["message"] for line in lines if line["what"] == "failure"}
    assert "sums are wrong" in failures["test_fails"]
    assert "fixture 'gpu' not found" in failures["test_lacks_a_fixture"]
    assert any("a_module_that_is_not_there" in message for message in failures.values())
    assert any("no GPU" in line["message"] for line in lines if line["what"] == "skipped")


def test_program_is_terminated_in_time_and_its_output_kept() -> None:
    program = [sys.executable, "-u", "-c", "import time; print('begun'); time.sleep(60)"]
    start = time.monotonic()
    assert sanitizer.run(program, 3.0) == (None, "begun\n")
    assert time.monotonic() - start < 30


def test_the_status_of_a_program_is_kept_with_the_end_of_its_output() -> None:
    program = [sys.executable, "-c", f"print('x' * {2 * sanitizer.LAST_CHARACTERS}, 'end'); exit(99)"]
    status, output = sanitizer.run(program, 30.0)
    assert status == 99
    assert output.endswith("end\n")
    assert len(output) == sanitizer.LAST_CHARACTERS
