"""Breaks training on purpose, counts what holds, and prints one table.

    bash scripts/run_reliability.sh
    bash scripts/run_reliability.sh --kills 5 --soak-share 0.05 --parts kills,soak

The parts: kills of running trainings, which are then resumed; long runs, whose memory must not grow; and the
tests of faults, of bad input and of several ranks. OUTPUT/table.md has the table with commit, date and
machine; that of some parts is OUTPUT/table_PART_PART.md. The exit status is 1 if something did not hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.machine import describe_run
from benchmarks.reliability.kills import kills
from benchmarks.reliability.soak import soak
from benchmarks.reliability.suites import SUITES, run_suite
from benchmarks.reliability.tally import Tally, table

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("kills", "soak", *SUITES)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--kills", type=int, default=50, help="how many (default: 50)")
    parser.add_argument(
        "--soak-share", type=float, default=1.0, help="share of the soak's steps (default: 1)"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "reliability")
    parsed = parser.parse_args(arguments)
    parsed.parts = parsed.parts.split(",")
    for part in parsed.parts:
        if part not in PARTS:
            parser.error(f"--parts: must be of {', '.join(PARTS)}, got {part}")
    return parsed


def tallies(parsed: argparse.Namespace) -> Iterator[Tally]:
    """Runs the parts and yields their lines."""
    for part in parsed.parts:
        try:
            if part == "kills":
                with tempfile.TemporaryDirectory() as folder:
                    yield from kills(parsed.kills, Path(folder))
            elif part == "soak":
                yield from soak(parsed.soak_share)
            else:
                yield run_suite(*SUITES[part])
        except RuntimeError as error:
            yield Tally(part, 1, 0, failures=[str(error)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts and writes the table."""
    parsed = parse_arguments(arguments)
    described = describe_run()
    machine = described["machine"]
    head = (
        f"# Reliability\n\nCommit {described['commit']}, {described['date']}, {machine['processor']}, "
        f"{machine['cpus']} processors, MindSpore {machine['mindspore']}, Python {machine['python']}.\n\n"
    )
    parsed.output.mkdir(parents=True, exist_ok=True)
    chosen = [part for part in PARTS if part in parsed.parts]
    name = "table" if len(chosen) == len(PARTS) else "_".join(["table", *chosen])
    lines: list[Tally] = []
    for line in tallies(parsed):
        print(f"{line.kind}: {line.held} of {line.tried} held", flush=True)
        lines.append(line)
        (parsed.output / f"{name}.md").write_text(head + table(lines), encoding="utf-8")
    print(head + table(lines))
    return int(any(line.held < line.tried or line.failures for line in lines))


if __name__ == "__main__":
    sys.exit(main())
