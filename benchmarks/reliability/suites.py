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
    "faults": (
        "damaged files, errors of the system, signals, NaN",
        (
            "tests/model_zoo/checkpoint/test_damage.py",
            "tests/model_zoo/test_run_lock.py",
            "tests/model_zoo/test_stopping.py",
            "tests/model_zoo/test_records.py",
            "tests/kernels/test_check_step.py",
            "tests/optim/test_nonfinite.py",
            "tests/statistics/test_nonfinite.py",
            "tests/train/test_own_loops_with_overflow.py",
        ),
    ),
    "inputs": (
        "wrong values, recipes, checkpoints, images and working folders",
        (
            "tests/optim/test_values.py",
            "tests/optim/test_restore.py",
            "tests/model_zoo/test_recipe_values.py",
            "tests/model_zoo/test_recipe.py",
            "tests/model_zoo/test_decoding.py",
            "tests/model_zoo/test_class_folders.py",
            "tests/scripts/test_working_folder.py",
        ),
    ),
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
        RuntimeError: pytest did not run the tests.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        finished = subprocess.run(
            [*command, f"--junitxml={report}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        # 1: some tests failed.
        if finished.returncode not in (0, 1):
            raise RuntimeError(f"pytest failed: {(finished.stdout + finished.stderr)[-2000:]}")
        return read_report(kind, report)
