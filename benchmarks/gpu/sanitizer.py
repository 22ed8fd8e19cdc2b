"""Runs a test of each operator under the tools of compute-sanitizer, if it is installed.

Without initcheck: the tests fill workspaces with NaN, so a read of what was not written gives a wrong value.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.kernel_tests import pytest_options
from benchmarks.gpu.record import Record, part_parser
from benchmarks.gpu.sources import ROOT

TOOLS = ("memcheck", "racecheck", "synccheck")
FOLDER = ROOT / "tests" / "gpu"
# By the function of the operator: convolutions have more paths than dense layers.
TESTS = {
    "KroneckerStatistics": "test_kronecker_statistics.py::test_sums_and_record[conv_odd]",
    "TraceRestrictedStatistics": "test_trace_restricted_statistics.py::test_partial_traces[conv_odd]",
    "ShermanMorrisonStatistics": "test_sherman_morrison_statistics.py::test_diagonals_and_sums[conv_odd]",
    "SKFACStatistics": "test_skfac_statistics.py::test_rows_and_sums[conv_odd-few-most]",
    "EigenbasisStatistics": "test_eigenbasis_statistics.py::test_factors_and_moments[conv_odd]",
    "UnitWiseStatistics": "test_unit_wise_statistics.py::test_passes_replace_and_join[batch-100]",
    "EmbeddingStatistics": "test_embedding_statistics.py::test_passes_replace_and_join[reduce-100]",
    "CommitStatistics": "test_commit.py::test_every_kind_of_layer",
    "MeasureGradients": "test_commit.py::test_measures[1]",
    "KroneckerRefresh": "test_refreshes.py::test_every_layer[KroneckerRefresh]",
    "BlockSplitRefresh": "test_refreshes.py::test_every_layer[BlockSplitRefresh]",
    "TraceRestrictedRefresh": "test_refreshes.py::test_every_layer[TraceRestrictedRefresh]",
    "ShermanMorrisonRefresh": "test_sherman_morrison_refresh.py::test_refresh_after_refresh",
    "SKFACRefresh": "test_refreshes.py::test_every_layer[SKFACRefresh]",
    "EigenbasisRefresh": "test_refreshes.py::test_every_layer[EigenbasisRefresh]",
    "KroneckerPrecondition": "test_precondition.py::test_updates_and_products[KroneckerCase-layers0]",
    "EigenbasisPrecondition": "test_precondition.py::test_updates_and_products[EigenbasisCase-layers1]",
    "SKFACPrecondition": "test_precondition.py::test_updates_and_products[SKFACCase-layers2]",
    "MomentumStep": "test_updates.py::test_momentum[True-True-True]",
}
PROGRAM = [
    sys.executable,
    "-m",
    "pytest",
    *pytest_options(FOLDER),
    *(f"{FOLDER}/{test}" for test in TESTS.values()),
]
ERRORS_FOUND = 99
LAST_CHARACTERS = 3000


def find_tool() -> str | None:
    """The path of compute-sanitizer, from PATH or the usual CUDA folder."""
    usual = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=str(usual))


def run(command: list[str], seconds: float) -> tuple[int | None, str]:
    """Runs a command.

    Args:
        command: the command.
        seconds: the time limit.

    Returns:
        The exit status (None after a timeout), and the end of the output.
    """
    # One allocation per tensor: torch's memory pool would hide out-of-bounds accesses.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            timeout=seconds,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        text = output.decode(errors="replace") if isinstance(output, bytes) else output
        return None, text[-LAST_CHARACTERS:]
    return done.returncode, done.stdout[-LAST_CHARACTERS:]


def main() -> int:
    """Runs the tools within the time limit.

    Returns:
        1 if a tool or the program itself found an error or got too little time, else 0.
    """
    arguments = part_parser(__doc__).parse_args()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    end = time.monotonic() + arguments.seconds
    runs = {"none": PROGRAM}
    tool = find_tool()
    if tool is None:
        record.add("sanitizer", tool=None, message="compute-sanitizer is not installed")
    elif not arguments.dry_run:
        for name in TOOLS:
            runs[name] = [tool, "--tool", name, "--error-exitcode", str(ERRORS_FOUND), *PROGRAM]
    for name, command in runs.items():
        remaining = end - time.monotonic()
        if remaining < 5:
            record.fail(name, "no time was left")
            continue
        start = time.monotonic()
        status, output = run(command, remaining)
        record.add(
            "sanitizer",
            tool=name,
            exit_status=status,
            clean=None if status is None else status == 0,
            seconds=round(time.monotonic() - start, 1),
            output=output,
        )
        if status != 0:
            record.fail(name, "it found errors" if status else "no time was left")
        elif "skipped" in output and not arguments.dry_run:
            record.fail(name, "tests were skipped")
    return int(record.failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
