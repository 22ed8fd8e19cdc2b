"""A CSV file with one line per finished run, so that a long benchmark can be continued later."""

from __future__ import annotations

import csv
import io
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from model_zoo.common.command_line import USAGE_STATUS
from model_zoo.common.interruption import SIGNAL_STATUS

_EXCEPTION = re.compile(r"(\w+\.)*\w*(Error|Exception|Interrupt|Exit)\b")


def error_line(stderr: str, status: int) -> str:
    """Finds the line of a failed process that names its exception; MindSpore prints a stack below it.

    Args:
        stderr: what the process printed.
        status: its exit status.

    Returns:
        The line, else the last line, else the status.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    named = [line for line in lines if _EXCEPTION.match(line)]
    return (named or lines or [f"exit status {status}"])[-1]


# Signals of a crash, which the same run would have again.
CRASHES = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")


def _signal_name(status: int) -> str | None:
    """The signal that ended a process, also one that handled the signal and left with its number."""
    number = -status if status < 0 else status - SIGNAL_STATUS
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}" if status < 0 else None


def error_of_run(name: str, stderr: str, status: int) -> str:
    """The error of a failed run, for its line in the log.

    Only an end that the same run would have again is its result. Others end this command, because a line in
    the log would keep the run from being repeated.

    Args:
        name: the run's name.
        stderr: what its process printed.
        status: its exit status.

    Returns:
        The line of its output that names the error.

    Raises:
        SystemExit: a signal ended the process that is no crash, or it could not read its command line or
            its data.
    """
    name_of_signal = _signal_name(status)
    if name_of_signal in CRASHES:
        return f"ended by {name_of_signal}"
    if name_of_signal is not None:
        hint = ", as when memory is short" if name_of_signal == "SIGKILL" else ""
        raise SystemExit(
            f"error: {name} was ended by {name_of_signal}{hint}; it has no result, and the same command "
            "repeats it"
        )
    line = error_line(stderr, status)
    if status == USAGE_STATUS:
        raise SystemExit(f"error: {name} could not start: {line.removeprefix('error: ')}")
    return line


class RunLog:
    """Appends one line per run to a CSV file.

    A line that a killed process left incomplete is removed when the file is opened.

    Args:
        path: the file.
        columns: its columns.
        key: the columns that identify a run.

    Raises:
        ValueError: the file has other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: Sequence[str]) -> None:
        self.path = path
        self.columns = tuple(columns)
        self._key = tuple(key)
        if not path.exists() or not path.read_text(encoding="utf-8").endswith("\n"):
            self._repair()
        with path.open(encoding="utf-8", newline="") as file:
            found = tuple(next(csv.reader(file)))
        if found != self.columns:
            raise ValueError(
                f"{path} must have the columns {', '.join(self.columns)}, got {', '.join(found)}"
            )

    def _repair(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        self.path.write_text(whole or self._line(self.columns), encoding="utf-8")

    @staticmethod
    def _line(values: Sequence[object]) -> str:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([str(value).replace("\n", " ") for value in values])
        return line.getvalue()

    def append(self, row: Mapping[str, object]) -> None:
        """Appends the line of a run; missing columns stay empty."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._line([row.get(column, "") for column in self.columns]))

    def rows(self) -> list[dict[str, str]]:
        """The lines of all runs, in order."""
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def find(self, **key: object) -> dict[str, str] | None:
        """The last line of the run with this key, or None."""
        wanted = {column: str(key[column]) for column in self._key}
        found = [row for row in self.rows() if all(row[column] == wanted[column] for column in self._key)]
        return found[-1] if found else None
