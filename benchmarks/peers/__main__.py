"""Step costs of libraries of curvature, ours and others, each relative to its own framework's momentum SGD.

    pip install -e '.[peers]'
    pip install git+https://github.com/gpauloski/kfac-pytorch
    python -m benchmarks.peers

Every library trains the same two networks on the same random batch: the zoo's convolutional network (128
images) and auto-encoder (500 images). A process per library takes one step of each kind per round: momentum
SGD, a step that keeps its curvature, one that also takes statistics, one that also refreshes inverses. Costs
at other intervals follow from the medians. Two more report the peak memory of SGD and of refreshes. Needs an
idle machine.

Each library adds a line to OUTPUT/peers.csv, and the same command goes on where an earlier one ended.
OUTPUT/peers.md has the table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.libraries import LIBRARIES
from benchmarks.peers.problems import KINDS
from benchmarks.peers.table import table
from benchmarks.support.run_log import RunLog, error_of_run

ROOT = Path(__file__).resolve().parents[2]
PROBLEMS = ("convnet", "autoencoder")
KEY = ("problem", "library", "version")
COLUMNS = (
    *KEY,
    *(f"{kind}_{part}" for kind in KINDS for part in ("ms", "low", "high")),
    *("sgd_mib", "everything_mib"),
    *("error", "commit", "date", "processor", "cpus"),
)


def _child(library: str, problem: str, minutes: float, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.peers.measure", "--library", library, "--problem", problem]
    try:
        run = subprocess.run(
            [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60 * minutes
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done after {minutes:g} minutes") from None
    if run.returncode != 0:
        raise RuntimeError(error_of_run(f"{library}, {problem}", run.stderr, run.returncode))
    found: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    return found


def measure(library: str, problem: str, rounds: int, minutes: float) -> dict[str, Any]:
    """The times and memories of a library.

    Args:
        library: a key of LIBRARIES.
        problem: one of PROBLEMS.
        rounds: steps of each kind.
        minutes: the time limit of each process.

    Returns:
        Columns of its line; "error" says what went wrong.

    Raises:
        SystemExit: a signal ended a process.
    """
    row: dict[str, Any] = {}
    try:
        for kind, summary in _child(library, problem, minutes, "--rounds", str(rounds)).items():
            for column, part in (("ms", "median"), ("low", "low"), ("high", "high")):
                row[f"{kind}_{column}"] = f"{summary[part]:.2f}"
        for kind in ("sgd", "everything"):
            row[f"{kind}_mib"] = f"{_child(library, problem, minutes, '--memory', kind)['peak_mib']:.0f}"
    except RuntimeError as error:
        return {"error": str(error)}
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the libraries without a line, and writes the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--libraries", metavar="NAMES", help="separated by commas (default: all installed)")
    parser.add_argument("--rounds", type=int, default=20, help="steps of each kind (default: 20)")
    parser.add_argument("--minutes", type=float, default=10, help="limit of a process (default: 10)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "peers")
    parsed = parser.parse_args(arguments)
    names = list(LIBRARIES) if parsed.libraries is None else parsed.libraries.split(",")
    for name in names:
        if name not in LIBRARIES:
            parser.error(f"--libraries: must be of {', '.join(LIBRARIES)}, got {name}")
    if parsed.rounds < 2:
        parser.error(f"--rounds: must be at least 2, got {parsed.rounds}")
    from benchmarks.machine import describe_run

    described = describe_run()
    machine = {key: described["machine"][key] for key in ("processor", "cpus")}
    log = RunLog(parsed.output / "peers.csv", COLUMNS, KEY)
    for problem in PROBLEMS:
        for name in names:
            try:
                version = importlib.metadata.version(LIBRARIES[name].package)
            except importlib.metadata.PackageNotFoundError:
                print(f"{name}: not installed")
                continue
            key = {"problem": problem, "library": name, "version": version}
            if log.find(**key):
                continue
            row = {**key, **machine, "commit": described["commit"], "date": described["date"]}
            log.append({**row, **measure(name, problem, parsed.rounds, parsed.minutes)})
            print(f"{problem}, {name}: done", flush=True)
    text = table(log.rows())
    (parsed.output / "peers.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
