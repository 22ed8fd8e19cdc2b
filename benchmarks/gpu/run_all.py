"""Runs all parts within the time limit and keeps one JSON file up to date; called by ``run_all.sh``."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import PARTS, ROOT, Interpreters, Part, allotted, run_part

DRY_RUN_NOTE = "a dry run on the CPU with small sizes: it shows that the code runs, and measures nothing"


def commit() -> str:
    """The checked-out commit, with "+" if files differ from it; empty outside a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("+" if changed else "")


def write(path: Path, report: dict[str, Any]) -> None:
    """Replaces the file atomically, so that a killed run leaves a complete one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def run_all(
    output: Path,
    *,
    seconds: float,
    interpreters: Interpreters,
    parts: Sequence[Part] = PARTS,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Runs the parts one after the other.

    Args:
        output: the JSON file.
        seconds: the time limit of all parts.
        interpreters: the interpreters.
        parts: the parts.
        dry_run: whether to only check that they run.

    Returns:
        The content of the JSON file.
    """
    start = time.monotonic()
    report: dict[str, Any] = {
        "dry_run": dry_run,
        **({"note": DRY_RUN_NOTE} if dry_run else {}),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "budget_seconds": seconds,
        "interpreters": vars(interpreters),
        "finished": False,
        "parts": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for index, part in enumerate(parts):
            remaining = seconds - (time.monotonic() - start)
            share = allotted(parts, index, remaining)
            result = run_part(part, interpreters, Path(folder), share, dry_run)
            report["parts"][part.name] = result
            report["seconds"] = round(time.monotonic() - start, 1)
            write(output, report)
            print(f"{part.name}: {result['status']}, {result.get('seconds', 0)} s", flush=True)
    report["finished"] = True
    write(output, report)
    return report


def main() -> int:
    """Runs the parts and prints a summary.

    Returns:
        0 if every part is done without a failure, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="the JSON file")
    parser.add_argument("--minutes", type=float, default=10.0, help="time for all parts; default 10")
    parser.add_argument("--mindspore-python", help="an interpreter that has MindSpore; default: this one")
    parser.add_argument("--mindspore-environment", default="", help="a shell file to source before it")
    parser.add_argument(
        "--only", nargs="+", choices=[part.name for part in PARTS], help="run only these parts"
    )
    parser.add_argument("--dry-run", action="store_true", help="small sizes on the CPU: no results")
    arguments = parser.parse_args()
    if not arguments.minutes > 0.1:
        parser.error(f"--minutes must be more than 0.1, got {arguments.minutes}")
    interpreters = Interpreters(mindspore_environment=arguments.mindspore_environment)
    if arguments.mindspore_python:
        interpreters = Interpreters(
            mindspore=arguments.mindspore_python, mindspore_environment=arguments.mindspore_environment
        )
    chosen = [part for part in PARTS if not arguments.only or part.name in arguments.only]
    report = run_all(
        arguments.output.resolve(),
        # Reserved for the end of the last part and for writing the file.
        seconds=60 * arguments.minutes - 5,
        interpreters=interpreters,
        parts=chosen,
        dry_run=arguments.dry_run,
    )
    print(
        f"{arguments.output}: {report['seconds']} s"
        + (", a dry run: no results" if arguments.dry_run else "")
    )
    return int(any(result["status"] != "done" for result in report["parts"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
