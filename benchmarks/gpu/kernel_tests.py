"""Runs ``tests/gpu`` and records every test that does not pass, with its message.

An illegal access to memory makes CUDA unusable for the rest of the process, and a kernel may never end. So
the tests run in a process of their own. If it ends early, another one runs the tests that are left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.gpu.record import LONGEST_MESSAGE, Record, part_parser, read_record
from benchmarks.gpu.sources import ROOT

# Far longer than any test takes. The first one also loads the library.
LONGEST_TEST = 30.0
POLL_SECONDS = 0.2


def pytest_options(folder: Path) -> list[str]:
    """The options with which pytest runs tests on a machine without MindSpore, where nothing is configured.

    Args:
        folder: the folder of the tests.

    Returns:
        The options.
    """
    # The conftest.py of tests/ needs MindSpore, and the project's configuration needs plugins of pytest.
    options = ["-q", "-c", os.devnull, "-p", "no:cacheprovider", "--import-mode=importlib"]
    return [*options, f"--confcutdir={folder}", f"--rootdir={ROOT}"]


class Outcomes:
    """A pytest plugin that records every test.

    Args:
        record: the record for all that does not pass.
        progress: the record of the tests that begin and end.
        done: the tests not to run again.
    """

    def __init__(self, record: Record, progress: Record, done: frozenset[str]) -> None:
        self.record, self.progress, self.done = record, progress, done
        self.broken = False

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leaves out what an earlier process has run."""
        items[:] = [item for item in items if item.nodeid not in self.done]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Marks the test that runs when the process ends."""
        self.progress.add("begun", of=nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Counts each test once: its call, or the set-up phase that failed or was skipped."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.progress.add("outcome", of=report.nodeid, outcome=report.outcome)
        if not report.passed:
            message = report.longreprtext if report.failed else str(report.longrepr)
            self.record.add(
                "failure" if report.failed else "skipped",
                of=report.nodeid,
                stage=report.when,
                message=message[-LONGEST_MESSAGE:],
            )

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Ends the process once CUDA no longer works in it."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            import pytest

            self.broken = True
            self.record.fail(nodeid, f"CUDA is not usable after it: {error}")
            pytest.exit(f"CUDA is not usable after {nodeid}: {error}", returncode=1)

    def pytest_collectreport(self, report: Any) -> None:
        """Counts a file that can't be collected as a failure."""
        if report.failed:
            self.record.add("failure", of=report.nodeid, message=report.longreprtext[-LONGEST_MESSAGE:])


def run_tests(record: Record, progress: Record, folder: Path) -> int:
    """Runs the tests that have not begun in this process.

    Args:
        record: the record for all that does not pass.
        progress: the record of the tests that begin and end.
        folder: the folder of the tests.

    Returns:
        The exit status of pytest.
    """
    # Imported here, because only these processes need it.
    import pytest

    outcomes = Outcomes(record, progress, frozenset(tests_in(progress.path, "begun")))
    options = [*pytest_options(folder), "--continue-on-collection-errors", str(folder)]
    status = int(pytest.main(options, plugins=[outcomes]))
    # Others are internal errors, after which tests may be left.
    ended = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
    if not outcomes.broken and status in ended:
        progress.add("complete")
    return status


def tests_in(progress: Path, what: str) -> list[str]:
    """The tests of a record that have begun, or that have an outcome."""
    return [line["of"] for line in read_record(progress) if line["what"] == what]


def supervise(process: subprocess.Popen[bytes], progress: Path, end: float) -> str:
    """Waits for a process that runs tests.

    Args:
        process: the process.
        progress: the record of the tests that begin and end.
        end: the end, on the monotonic clock.

    Returns:
        Why it was killed; empty if it ended by itself.
    """
    size, changed = -1, time.monotonic()
    while process.poll() is None:
        now, written = time.monotonic(), progress.stat().st_size
        if written != size:
            size, changed = written, now
        if now > end:
            process.kill()
            return "no time was left"
        if now - changed > LONGEST_TEST and running_test(progress):
            process.kill()
            return f"did not end within {LONGEST_TEST:.0f} s"
        time.sleep(POLL_SECONDS)
    return ""


def running_test(progress: Path) -> str:
    """The test that has begun and has no outcome; empty if there is none."""
    last = "".join(tests_in(progress, "begun")[-1:])
    return "" if last in tests_in(progress, "outcome") else last


def run_in_processes(record: Record, folder: Path, end: float) -> Counter[str]:
    """Runs all tests, in as many processes as they need.

    Args:
        record: the record for all that does not pass.
        folder: the folder of the tests.
        end: the end, on the monotonic clock.

    Returns:
        The number of tests by outcome, and of processes.
    """
    progress = record.path.with_suffix(".progress")
    progress.write_text("")
    command = [sys.executable, "-m", "benchmarks.gpu.kernel_tests", "--record", str(record.path)]
    command += ["--folder", str(folder), "--progress", str(progress)]
    command += ["--dry-run"] if record.dry_run else []
    processes, begun = 0, -1
    # A process that began no test would not do so the next time either.
    while begun < len(tests_in(progress, "begun")) and time.monotonic() < end:
        begun = len(tests_in(progress, "begun"))
        processes += 1
        process = subprocess.Popen(command, cwd=ROOT)
        reason = supervise(process, progress, end)
        process.wait()
        if test := running_test(progress):
            message = reason or f"ended the process with status {process.returncode}"
            record.fail(test, message)
            Record(progress).add("outcome", of=test, outcome="failed")
        if any(line["what"] == "complete" for line in read_record(progress)):
            break
    else:
        record.fail(str(folder), "not every test has run")
    outcomes = Counter(line["outcome"] for line in read_record(progress) if line["what"] == "outcome")
    return outcomes + Counter(processes=processes)


def main() -> int:
    """Runs the tests.

    Returns:
        0 if no test failed and one passed, else 1.
    """
    parser = part_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "tests" / "gpu")
    parser.add_argument("--progress", type=Path, help="run the tests in this process, and record each here")
    arguments = parser.parse_args()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    if arguments.progress:
        return run_tests(record, Record(arguments.progress), arguments.folder)
    counts = run_in_processes(record, arguments.folder, time.monotonic() + arguments.seconds)
    record.add("tests", counts=dict(counts))
    if not counts["passed"] and not arguments.dry_run:
        record.fail(str(arguments.folder), "no test passed: nothing was checked")
    return int(any(line["what"] == "failure" for line in read_record(record.path)))


if __name__ == "__main__":
    raise SystemExit(main())
