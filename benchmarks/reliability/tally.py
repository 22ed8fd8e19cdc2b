"""What was tried and what held, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tally:
    """One line of the table.

    Attributes:
        kind: what was tried.
        tried: how many times.
        held: how many times the right thing happened.
        skipped: how many cases could not be tried here.
        note: figures, such as the growth of memory.
        failures: what went wrong, one text per case.
    """

    kind: str
    tried: int
    held: int
    skipped: int = 0
    note: str = ""
    failures: Sequence[str] = field(default=())


def table(tallies: Sequence[Tally]) -> str:
    """Formats the lines as a Markdown table, with the failures below it."""
    lines = ["| kind | tried | held | skipped | figures |", "|---|---|---|---|---|"]
    lines += [f"| {of.kind} | {of.tried} | {of.held} | {of.skipped} | {of.note} |" for of in tallies]
    failures = [f"- {of.kind}: {text}" for of in tallies for text in of.failures]
    return "\n".join([*lines, *([""] if failures else []), *failures]) + "\n"
