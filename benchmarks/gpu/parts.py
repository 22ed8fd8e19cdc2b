"""The parts of the run: one process each, with a time limit; a failed part does not stop the others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.record import read_record
from benchmarks.gpu.sources import ROOT

# A part is told to finish this long before it is terminated.
NOTICE_SECONDS = 4.0
LAST_LINES = 40
LONGEST_END = 5.0


@dataclass(frozen=True)
class Part:
    """A part, run as one process.

    Attributes:
        name: its name.
        module: its module in ``benchmarks.gpu``.
        least: seconds that earlier parts reserve for it.
        most: its time limit in seconds.
        needs: what it can't run without, see ``machine.py``.
        arguments: additional arguments.
        environment: additional environment variables.
        prepares: whether it only prepares others. A run of such parts alone checks nothing.
    """

    name: str
    module: str
    least: float
    most: float
    needs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    prepares: bool = False

    @property
    def mindspore(self) -> bool:
        """Whether it runs with the interpreter that has MindSpore."""
        return "mindspore" in self.needs


KERNELS = ("torch", "g++", "kernels")
NATIVE = ("gpu", "mindspore", "kernels")
FALLBACK = ("gpu", "mindspore")


def _training(network: str, form: str, least: float, most: float) -> Part:
    native = form == "native"
    return Part(
        f"training, {network}, {form}",
        "training",
        least,
        most,
        NATIVE if native else FALLBACK,
        ("--network", network),
        environment={"MS_KFAC_NATIVE": str(int(native))},
    )


# Always the first. It finds out what the other parts need.
MACHINE = Part("machine", "machine", 10, 60, prepares=True)
# Ordered by importance, in case the time runs out: errors of all kernels before times.
PARTS = (
    Part("build", "build", 10, 240, ("gpu", "nvcc"), prepares=True),
    Part("tests", "kernel_tests", 40, 120, (*KERNELS, "pytest")),
    Part("errors", "errors", 30, 60, KERNELS),
    Part("memory errors", "sanitizer", 40, 120, (*KERNELS, "pytest", "compute-sanitizer")),
    Part("steps", "steps", 25, 50, KERNELS),
    Part("inverses", "inverses", 20, 60, KERNELS),
    Part("eigenbases", "eigenbases", 20, 60, KERNELS),
    Part("covariance", "covariance", 40, 150, KERNELS),
    _training("resnet20", "native", 45, 150),
    Part("sink", "sink", 30, 120, NATIVE),
    _training("resnet50", "native", 70, 200),
    _training("resnet20", "fallback", 30, 100),
    Part("thor, resnet20", "thor", 25, 60, FALLBACK, ("--network", "resnet20")),
    _training("resnet50", "fallback", 50, 120),
    Part("thor, resnet50", "thor", 40, 120, FALLBACK, ("--network", "resnet50")),
)


@dataclass(frozen=True)
class Interpreters:
    """The interpreters that run the parts.

    Attributes:
        python: an interpreter with torch.
        mindspore: an interpreter with MindSpore.
        mindspore_environment: a shell file to source before the one with MindSpore; empty for none.
    """

    python: str = sys.executable
    mindspore: str = sys.executable
    mindspore_environment: str = ""


def allotted(parts: Sequence[Part], index: int, remaining: float) -> float:
    """The time limit of a part.

    Args:
        parts: all parts.
        index: the index of the next part.
        remaining: seconds left for it and the later parts.

    Returns:
        The remaining seconds minus the reserves of the later parts, at most the part's limit; 0 if that is
        less than its reserve.
    """
    part = parts[index]
    seconds = min(part.most, remaining - sum(later.least for later in parts[index + 1 :]))
    if seconds >= part.least:
        return seconds
    # If the run is late, the later parts lose their time, not this one.
    return part.least if remaining >= part.least else 0.0


def command_of(
    part: Part, interpreters: Interpreters, record: Path, seconds: float, dry_run: bool
) -> list[str]:
    """The command line of a part."""
    python = interpreters.mindspore if part.mindspore else interpreters.python
    command = [python, "-m", f"benchmarks.gpu.{part.module}", "--record", str(record)]
    command += ["--seconds", f"{max(seconds - NOTICE_SECONDS, 1):.0f}", *part.arguments]
    command += ["--dry-run"] if dry_run else []
    return in_environment(command, interpreters) if part.mindspore else command


def in_environment(command: list[str], interpreters: Interpreters) -> list[str]:
    """A command line that sources the file for MindSpore first, if there is one."""
    if not interpreters.mindspore_environment:
        return command
    # Through an array, because such files may read the arguments that they are sourced with.
    script = 'command=("$@"); environment="${command[0]}"; set --; . "$environment"; exec "${command[@]:1}"'
    return ["bash", "-c", script, "bash", interpreters.mindspore_environment, *command]


def run_part(
    part: Part, interpreters: Interpreters, folder: Path, seconds: float, dry_run: bool, root: Path = ROOT
) -> dict[str, Any]:
    """Runs a part and waits for it, up to its time limit.

    Args:
        part: the part.
        interpreters: the interpreters.
        folder: the folder for its record and output, and its working folder: MindSpore writes into that.
        seconds: the time limit.
        dry_run: whether to only check that it runs.
        root: the folder of the sources.

    Returns:
        The status ("done", "failed", "out of time" or "not run"), seconds, exit status, the last lines of its
        output unless it is done, and its record.
    """
    if seconds <= 0:
        return {"status": "not run", "message": "no time was left", "records": []}
    stem = "".join(letter if letter.isalnum() else "_" for letter in part.name)
    record, output = folder / f"{stem}.jsonl", folder / f"{stem}.txt"
    # The parts with MindSpore adapt it to NumPy 2, see numpy2.py.
    fixed = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "MS_KFAC_ALLOW_NUMPY_2": "1"}
    environment = {**os.environ, **part.environment, **fixed}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    start = time.monotonic()
    status: int | None
    with output.open("w") as printed:
        try:
            process = subprocess.Popen(
                command_of(part, interpreters, record, seconds, dry_run),
                cwd=folder,
                env=environment,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return {"status": "failed", "message": str(error), "records": []}
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end_group(process)
    records = read_record(record)
    failures = sum(entry["what"] == "failure" for entry in records)
    result: dict[str, Any] = {
        "status": "out of time" if status is None else "failed" if status or failures else "done",
        "seconds": round(time.monotonic() - start, 1),
        "allotted_seconds": round(seconds, 1),
        "exit_status": status,
        "failures": failures,
    }
    if result["status"] != "done":
        result["last_lines"] = output.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return {**result, "records": records}


def _end_group(process: subprocess.Popen[bytes]) -> None:
    # Child processes of the part must not run during the next part.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process that waits for a hung device can't be ended. It must not take the other parts along.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(LONGEST_END)
