"""Tests the records of parts that run other programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import kernel_tests, sanitizer
from benchmarks.gpu.record import Record, read_record
from benchmarks.gpu.sources import ROOT

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


def run_tests(tmp_path: Path, **files: str) -> tuple[int, list[dict]]:
    """Runs test files as the part does; returns its status and record."""
    folder = tmp_path / "tests"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    path = tmp_path / "part.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu.kernel_tests", "--record", str(path), "--seconds", "600"]
    done = subprocess.run(
        [*command, "--folder", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, read_record(path)


def counts_of(lines: list[dict]) -> dict[str, int]:
    return next(line["counts"] for line in lines if line["what"] == "tests")


def failures_of(lines: list[dict]) -> dict[str, str]:
    return {line["of"].rsplit("::")[-1]: line["message"] for line in lines if line["what"] == "failure"}


def test_every_test_that_did_not_pass_is_recorded_with_its_message(tmp_path: Path) -> None:
    # The second file can't be collected, which must not keep the tests of the first from running.
    status, lines = run_tests(tmp_path, test_some=TESTS, test_others="import a_module_that_is_not_there")
    assert status == 1
    assert counts_of(lines) == {"passed": 1, "failed": 2, "skipped": 1, "processes": 1}
    failures = failures_of(lines)
    assert "sums are wrong" in failures["test_fails"]
    assert "fixture 'gpu' not found" in failures["test_lacks_a_fixture"]
    assert any("a_module_that_is_not_there" in message for message in failures.values())
    assert any("no GPU" in line["message"] for line in lines if line["what"] == "skipped")


def test_tests_of_the_kernels_need_neither_mindspore_nor_plugins_of_pytest(tmp_path: Path) -> None:
    # A module that is None can't be imported.
    program = """
import sys
for name in ("mindspore", "hypothesis", "pytest_timeout", "pytest_cov", "xdist"):
    sys.modules[name] = None
from benchmarks.gpu.kernel_tests import main
sys.exit(main())
"""
    path, progress = tmp_path / "part.jsonl", tmp_path / "progress"
    command = [sys.executable, "-c", program, "--record", str(path), "--progress", str(progress)]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert failures_of(read_record(path)) == {}
    of = {line["of"].split("::")[0] for line in read_record(progress) if line["what"] == "begun"}
    assert {Path(file).name for file in of} == {
        file.name for file in (ROOT / "tests" / "gpu").glob("test_*.py")
    }


def test_tests_that_pass_are_enough(tmp_path: Path) -> None:
    status, lines = run_tests(tmp_path, test_one="def test_passes():\n    pass\n")
    assert (status, failures_of(lines)) == (0, {})


def test_tests_after_one_that_ends_the_process_run_in_another(tmp_path: Path) -> None:
    text = "import os\ndef test_a(): pass\ndef test_dies(): os._exit(7)\ndef test_z(): pass\n"
    status, lines = run_tests(tmp_path, test_one=text)
    assert status == 1
    assert counts_of(lines) == {"passed": 2, "failed": 1, "processes": 2}
    assert failures_of(lines) == {"test_dies": "ended the process with status 7"}


@pytest.mark.parametrize("passes", [False, True])
def test_tests_after_one_that_breaks_cuda_run_in_another_process(passes: bool, tmp_path: Path) -> None:
    # Stands in for torch: after test_breaks no call of CUDA succeeds in this process.
    torch = """
import sys, types
def synchronize():
    if torch.broken:
        raise RuntimeError("an illegal memory access was encountered")
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.cuda = types.SimpleNamespace(is_initialized=lambda: True, synchronize=synchronize)
torch.broken = False
"""
    text = f"""
import sys
def test_breaks():
    sys.modules["torch"].broken = True
    assert {passes}, "wrong sums"
def test_z():
    assert not sys.modules["torch"].broken
"""
    status, lines = run_tests(tmp_path, conftest=torch, test_one=text)
    assert status == 1
    assert counts_of(lines) == {"passed": 1 + passes, **({} if passes else {"failed": 1}), "processes": 2}
    assert "illegal memory access" in failures_of(lines)["test_breaks"]
    assert passes or any("wrong sums" in line["message"] for line in lines if line["what"] == "failure")


def test_an_internal_error_of_pytest_leaves_tests_to_run(tmp_path: Path) -> None:
    conftest = "def pytest_runtest_logfinish(nodeid): raise KeyError('lost')\n"
    text = "def test_a(): pass\ndef test_b(): pass\n"
    _, lines = run_tests(tmp_path, conftest=conftest, test_one=text)
    assert counts_of(lines) == {"passed": 2, "processes": 3}


def test_tests_after_one_that_hangs_run_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import time\ndef test_hangs(): time.sleep(600)\ndef test_z(): pass\n"
    (tmp_path / "test_one.py").write_text(text)
    monkeypatch.setattr(kernel_tests, "LONGEST_TEST", 3.0)
    record = Record(tmp_path / "part.jsonl")
    counts = kernel_tests.run_in_processes(record, tmp_path, time.monotonic() + 600)
    assert counts == {"passed": 1, "failed": 1, "processes": 2}
    assert failures_of(read_record(record.path)) == {"test_hangs": "did not end within 3 s"}


def test_tests_that_get_no_time_are_a_failure(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("import time\ndef test_long(): time.sleep(600)\n")
    record = Record(tmp_path / "part.jsonl")
    kernel_tests.run_in_processes(record, tmp_path, time.monotonic() + 4)
    assert "not every test has run" in failures_of(read_record(record.path)).values()


def test_program_is_terminated_in_time_and_its_output_kept() -> None:
    program = [sys.executable, "-u", "-c", "import time; print('begun'); time.sleep(60)"]
    start = time.monotonic()
    assert sanitizer.run(program, 3.0) == (None, "begun\n")
    assert time.monotonic() - start < 30


def test_a_tool_without_time_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sanitizer, "find_tool", lambda: "compute-sanitizer")
    statuses = iter([0, None, 0, 0, 0])
    monkeypatch.setattr(sanitizer, "run", lambda command, seconds: (next(statuses), ""))
    record = tmp_path / "record.jsonl"
    monkeypatch.setattr(sys, "argv", ["sanitizer", "--record", str(record), "--seconds", "60"])
    assert sanitizer.main() == 1
    assert failures_of(read_record(record)) == {sanitizer.TOOLS[0]: "no time was left"}


def test_the_status_of_a_program_is_kept_with_the_end_of_its_output() -> None:
    program = [sys.executable, "-c", f"print('x' * {2 * sanitizer.LAST_CHARACTERS}, 'end'); exit(99)"]
    status, output = sanitizer.run(program, 30.0)
    assert status == 99
    assert output.endswith("end\n")
    assert len(output) == sanitizer.LAST_CHARACTERS
