"""Runs ``tests/gpu`` and records every test that does not pass, with its message."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import ROOT
from benchmarks.gpu.record import LONGEST_MESSAGE, Record, part_parser


class Outcomes:
    """A pytest plugin that counts outcomes and records all but passes.

    Args:
        record: the record to write to.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Counts each test once: its call, or the set-up phase that failed or was skipped."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.counts[report.outcome] += 1
        if not report.passed:
            message = report.longreprtext if report.failed else str(report.longrepr)
            self.record.add(
                "failure" if report.failed else "skipped",
                of=report.nodeid,
                stage=report.when,
                message=message[-LONGEST_MESSAGE:],
            )

    def pytest_collectreport(self, report: Any) -> None:
        """Counts a file that can't be collected as a failure."""
        if report.failed:
            self.record.add("failure", of=report.nodeid, message=report.longreprtext[-LONGEST_MESSAGE:])


def main() -> int:
    """Runs the tests.

    Returns:
        The exit status of pytest; 1 if no test passed.
    """
    parser = part_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "tests" / "gpu")
    arguments = parser.parse_args()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    # Imported here, so that a missing pytest is reported and only this part fails.
    with record.attempt("import pytest"):
        import pytest

        outcomes = Outcomes(record)
        folder = arguments.folder
        # The conftest.py of tests/ needs MindSpore.
        options = ["-q", "-p", "no:cacheprovider", f"--confcutdir={folder}", f"--rootdir={ROOT}"]
        status = int(pytest.main([*options, str(folder)], plugins=[outcomes]))
        record.add("tests", counts=dict(outcomes.counts), exit_status=status)
        if status == 0 and not outcomes.counts["passed"] and not arguments.dry_run:
            record.add("failure", of=str(folder), message="every test was skipped: nothing was checked")
            return 1
        return status
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
