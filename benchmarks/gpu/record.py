"""The record of a part: JSON lines, which survive if the part is killed."""

from __future__ import annotations

import argparse
import json
import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST_MESSAGE = 4000


class Record:
    """Appends JSON lines to a file.

    Args:
        path: the file.
        dry_run: whether this is a dry run; every line then says so.
    """

    def __init__(self, path: Path, *, dry_run: bool = False) -> None:
        self.path = path
        self.dry_run = dry_run
        self.failures = 0

    def add(self, what: str, **values: Any) -> None:
        """Appends one line.

        Args:
            what: the kind of the line.
            **values: JSON values; NaN and infinities become strings.
        """
        mark = {"dry_run": True} if self.dry_run else {}
        line = json.dumps(_of_json({"what": what, **mark, **values}), allow_nan=False)
        with self.path.open("a") as file:
            file.write(line + "\n")

    def fail(self, of: str, message: str, **values: Any) -> None:
        """Prints and appends a failure, which fails the part.

        Args:
            of: what failed.
            message: why; its end is left out beyond ``LONGEST_MESSAGE`` characters.
            **values: further JSON values.
        """
        self.failures += 1
        print(f"{of}: {message}", flush=True)
        self.add("failure", of=of, message=message[:LONGEST_MESSAGE], **values)

    def check(self, of: str, *, error: float, threshold: float, **values: Any) -> None:
        """Appends an error with its threshold, and a failure if the error is above it or NaN.

        Args:
            of: what has the error.
            error: the error.
            threshold: the largest error that its arithmetic explains, see ``thresholds.py``.
            **values: further JSON values.
        """
        self.add("error", of=of, error=error, threshold=threshold, **values)
        if not error <= threshold:
            self.fail(of, f"the error {error:.2e} is above its threshold {threshold:.2e}")

    @contextmanager
    def attempt(self, of: str) -> Iterator[None]:
        """Records an exception in the `with` block as a line, and suppresses it.

        Args:
            of: what is attempted.

        Yields:
            Nothing.
        """
        try:
            yield
        except Exception as error:
            text = "".join(traceback.format_exception_only(type(error), error)).strip()
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.fail(of, text, place=f"{Path(place.filename).name}:{place.lineno}")


def read_record(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a record.

    Args:
        path: the file; a missing file has no lines.

    Returns:
        One dictionary per line, without a truncated last line.
    """
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            lines.append({"what": "cut off", "text": text[:200]})
    return lines


def part_parser(description: str | None) -> argparse.ArgumentParser:
    """The argument parser shared by all parts."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--record", type=Path, required=True, help="the file to append to")
    parser.add_argument("--seconds", type=float, default=60.0, help="stop measuring after this time")
    parser.add_argument("--dry-run", action="store_true", help="small sizes, on the CPU: no results")
    return parser


def _of_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _of_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_of_json(entry) for entry in value]
    return value
