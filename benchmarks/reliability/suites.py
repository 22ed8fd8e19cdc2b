"""The tests of faults, bad input and ranks, counted by kind."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.reliability.tally import Tally

ROOT = Path(__file__).resolve().parents[2]
# A test that tries many inputs records their number under this name (pytest's record_property).
INPUTS = "inputs"
# Lines of the table: their kinds and what pytest is to run.
SUITES = {
    "faults": ("faults: damaged files, disks, signals, NaN", ("tests/model_zoo/checkpoint",)),
    "inputs": ("wrong values, recipes, command lines and images", ("tests/model_zoo/test_recipe.py",)),
    "ranks": ("several ranks", ("tests/parallel", "tests/model_zoo/test_distributed.py")),
}


def read_report(kind: str, report: Path) -> Tally:
    """Counts the cases of a JUnit report.

    A test counts as often as it has inputs. A failed one counts as one that did not hold.

    Args:
        kind: the name of the line.
        report: the XML file of pytest.

    Returns:
        The line.
    """
    tried = held = skipped = 0
    failures = []
    for case in ElementTree.parse(report).iter("testcase"):
        recorded = [p.get("value", "1") for p in case.iter("property") if p.get("name") == INPUTS]
        inputs = int(recorded[0]) if recorded else 1
        broken = [child for child in case if child.tag in ("failure", "error")]
        if case.find("skipped") is not None:
            skipped += inputs
            continue
        tried += inputs
        held += inputs - (1 if broken else 0)
        failures += [
            f"{case.get('name')}: {(child.get('message') or '').splitlines()[0]}" for child in broken[:1]
        ]
    return Tally(kind, tried, held, skipped, failures=failures)


def run_suite(kind: str, tests: Sequence[str]) -> Tally:
    """Runs tests and counts them.

    Args:
        kind: the name of the line.
        tests: arguments of pytest that select the tests.

    Returns:
        The line.

    Raises:
        RuntimeError: pytest wrote no report.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        finished = subprocess.run(
            [*command, f"--junitxml={report}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if not report.exists():
            raise RuntimeError(f"pytest wrote no report: {(finished.stdout + finished.stderr)[-2000:]}")
        return read_report(kind, report)
