"""Runs a small program under each tool of compute-sanitizer, if it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.record import Record, part_parser
from benchmarks.gpu.sources import ROOT

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
PROGRAM = [sys.executable, "-m", "benchmarks.gpu.sanitizer_program"]
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
    program = [*PROGRAM, *(["--dry-run"] if arguments.dry_run else [])]
    runs = {"none": program}
    tool = find_tool()
    if tool is None:
        record.add("sanitizer", tool=None, message="compute-sanitizer is not installed")
    elif not arguments.dry_run:
        for name in TOOLS:
            runs[name] = [tool, "--tool", name, "--error-exitcode", str(ERRORS_FOUND), *program]
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
    return int(record.failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
