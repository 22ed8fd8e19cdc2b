"""Runs all parts within the time limit and keeps one JSON file up to date; called by ``run_all.sh``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import set_up_mindspore
from benchmarks.gpu.parts import MACHINE, PARTS, Interpreters, Part, allotted, in_environment, run_part
from benchmarks.gpu.sources import FOLDERS, ROOT, commit, fingerprint

DRY_RUN_NOTE = "a dry run on the CPU with small sizes: it shows that the code runs, and measures nothing"
OUTPUT = ROOT / "docs" / "results" / "gpu" / "run_all.json"
# Reserved for the end of the last part and for writing the file.
RESERVED_SECONDS = 5.0
# Of a failure's message, on the line of its part.
LONGEST_REASON = 300
FINE, FAILED, USAGE, NOTHING_RAN = 0, 1, 2, 3


def write(path: Path, report: dict[str, Any]) -> None:
    """Replaces the file atomically, so that a killed run leaves a complete one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def writable_sources(folder: Path) -> Path:
    """The sources, or a copy of them if they can't be written: the kernels are built next to their sources.

    Args:
        folder: the folder for the copy.

    Returns:
        The folder of the sources to run.
    """
    if os.access(ROOT / "ms_kfac" / "kernels", os.W_OK):
        return ROOT
    copy = folder / "sources"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name)
    shutil.copy(ROOT / "pyproject.toml", copy)
    # Copies of read-only folders are read-only, too.
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    return copy


def why_no_mindspore(interpreters: Interpreters) -> str:
    """Why the parts with MindSpore can't run; empty if they can."""
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('mindspore') is None)"
    command = in_environment([interpreters.mindspore, "-c", look], interpreters)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else f"mindspore is not installed for {interpreters.mindspore}"


def why_not(part: Part, missing: dict[str, str]) -> str:
    """Why a part can't run: the first thing that it needs and that is missing; empty if it can."""
    return next((missing[need] for need in part.needs if need in missing), "")


def note_what_is_missing_now(part: Part, result: dict[str, Any], missing: dict[str, str]) -> None:
    """Updates what is missing after a part that prepares others.

    Args:
        part: the part.
        result: its result.
        missing: the reasons by name.
    """
    if part is MACHINE:
        missing.update(
            {line["of"]: line["reason"] for line in result["records"] if line["what"] == "missing"}
        )
    elif part.name == "build" and result["status"] == "cannot run":
        missing["kernels"] = result["message"]
    # A build that only has a failure to report, such as a kernel that spills, has its library.
    elif part.prepares and result.get("exit_status") != 0:
        missing["kernels" if part.name == "build" else "mindspore"] = f"the part {part.name} did not succeed"


def run_all(
    output: Path,
    *,
    seconds: float,
    interpreters: Interpreters,
    parts: Sequence[Part] = PARTS,
    missing: dict[str, str] | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Runs the parts one after the other, after the one that describes the machine.

    Args:
        output: the JSON file.
        seconds: the time limit of all parts.
        interpreters: the interpreters.
        parts: the parts.
        missing: why what parts need is missing, by name.
        dry_run: whether to only check that they run.

    Returns:
        The content of the JSON file.
    """
    start = time.monotonic()
    missing = dict(missing or {})
    report: dict[str, Any] = {
        "dry_run": dry_run,
        **({"note": DRY_RUN_NOTE} if dry_run else {}),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "sources": fingerprint(),
        "budget_seconds": seconds,
        "interpreters": vars(interpreters),
        "finished": False,
        "parts": {},
    }
    write(output, report)
    waiting = [MACHINE, *parts]
    with tempfile.TemporaryDirectory(prefix="ms_kfac_gpu_") as folder:
        root = writable_sources(Path(folder))
        while waiting:
            part = waiting.pop(0)
            if reason := why_not(part, missing):
                result = {"status": "cannot run", "message": reason, "records": []}
            else:
                able = [part, *(later for later in waiting if not why_not(later, missing))]
                share = allotted(able, 0, seconds - (time.monotonic() - start))
                result = run_part(part, interpreters, Path(folder), share, dry_run, root)
            note_what_is_missing_now(part, result, missing)
            report["parts"][part.name] = result
            report["seconds"] = round(time.monotonic() - start, 1)
            write(output, report)
            print(line_of(part, result), flush=True)
    report["finished"] = True
    write(output, report)
    return report


def line_of(part: Part, result: dict[str, Any]) -> str:
    """One line about a part: its status, the reason if it did not run, and its first failure."""
    failures = [line for line in result["records"] if line["what"] == "failure"]
    details = [f"{result['seconds']} s"] if "seconds" in result else []
    details += [result["message"]] if "message" in result else []
    if failures:
        first = failures[0]
        reason = "".join(first["message"].splitlines()[-1:])
        details.append(f"{len(failures)} failures, the first: {first['of']}: {reason[:LONGEST_REASON]}")
    return f"{part.name}: {result['status']}, {', '.join(details)}"


def exit_status(report: dict[str, Any], parts: Sequence[Part]) -> int:
    """The exit status of a run.

    Args:
        report: the content of its file.
        parts: the parts that were asked for.

    Returns:
        ``FAILED`` if a part failed, ran out of time or got none; else ``NOTHING_RAN`` if no part that checks
        or measures could run; else ``FINE``. Parts that can't run here do not count.
    """
    statuses = {name: result["status"] for name, result in report["parts"].items()}
    if any(status not in ("done", "cannot run") for status in statuses.values()):
        return FAILED
    asked = [part for part in parts if not part.prepares] or list(parts)
    return FINE if any(statuses[part.name] == "done" for part in asked) else NOTHING_RAN


def choose_parts(only: Sequence[str] | None, mindspore: Path | None) -> list[Part]:
    """The parts to run.

    Args:
        only: the names of the chosen ones; None for all.
        mindspore: the folder with MindSpore, for the parts with MindSpore alone.

    Returns:
        The parts in their order.
    """
    parts = list(PARTS)
    if mindspore is not None:
        set_up = Part(
            "set-up of MindSpore",
            "set_up_mindspore",
            60,
            200,
            ("gpu",),
            ("--folder", str(mindspore)),
            prepares=True,
        )
        parts = [parts[0], set_up, *(part for part in parts if part.mindspore)]
    return [part for part in parts if not only or part.name in only or (mindspore and part.prepares)]


def main() -> int:
    """Runs the parts and prints a summary.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the JSON file")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all parts; default 9")
    parser.add_argument("--mindspore-python", help="an interpreter that has MindSpore; default: this one")
    parser.add_argument("--mindspore-environment", default="", help="a shell file to source before it")
    parser.add_argument("--mindspore", type=Path, help="a folder to unpack MindSpore from, to train with it")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="only these parts")
    parser.add_argument("--dry-run", action="store_true", help="small sizes on the CPU: no results")
    arguments = parser.parse_args()
    if not arguments.minutes > 0.1:
        parser.error(f"--minutes must be more than 0.1, got {arguments.minutes}")
    environment, folder = arguments.mindspore_environment, arguments.mindspore
    if folder is not None:
        folder = folder.resolve()
        if reason := set_up_mindspore.why_not(folder):
            parser.error(f"--mindspore: {reason}")
        environment = str(folder / set_up_mindspore.SCRIPT)
        prepared = [part.name for part in choose_parts(None, folder)]
        for name in arguments.only or ():
            if name not in prepared:
                parser.error(f"--only: with --mindspore, must be of {', '.join(prepared)}, got {name}")
    output: Path = arguments.output.resolve()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.with_name(output.name + ".partial").touch()
    except OSError as error:
        parser.error(f"--output must be a file that can be written, got {output}: {error.strerror}")
    interpreters = Interpreters(
        mindspore=arguments.mindspore_python or sys.executable, mindspore_environment=environment
    )
    # So that the part that runs is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parts = choose_parts(arguments.only, folder)
    with tempfile.TemporaryDirectory(prefix="mindspore_") as unpacked:
        os.environ.setdefault("MSROOT", str(Path(unpacked) / "root"))
        report = run_all(
            output,
            seconds=60 * arguments.minutes - RESERVED_SECONDS,
            interpreters=interpreters,
            parts=parts,
            missing={} if folder or not (reason := why_no_mindspore(interpreters)) else {"mindspore": reason},
            dry_run=arguments.dry_run,
        )
    print(f"{output}: {report['seconds']} s" + (", a dry run: no results" if arguments.dry_run else ""))
    status = exit_status(report, parts)
    if status == NOTHING_RAN:
        print("nothing ran: no part that checks or measures could run here", file=sys.stderr)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
