"""A log of runs, and which ends of a run are results of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.support.run_log import RunLog, error_line, error_of_run


def test_a_log_continues_and_drops_an_incomplete_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.csv"
    log = RunLog(path, ("name", "seed", "text"), ("name", "seed"))
    log.append({"name": "a", "seed": 1, "text": 'one, "two"\nthree'})
    with path.open("a") as file:
        file.write("b,1,cut o")
    log = RunLog(path, ("name", "seed", "text"), ("name", "seed"))
    log.append({"name": "a", "seed": 2})
    assert [line["seed"] for line in log.rows()] == ["1", "2"]
    assert log.find(name="a", seed=1) == {"name": "a", "seed": "1", "text": 'one, "two" three'}
    assert log.find(name="b", seed=1) is None
    with pytest.raises(ValueError, match=r"log\.csv must have the columns name, got name, seed, text"):
        RunLog(path, ("name",), ("name",))


def test_an_exception_is_found_above_a_stack() -> None:
    assert (
        error_line("Traceback\n  File x\nmindspore.X.OwnError: no\n\n- C++ Stack\nfile.cc:1\n", 1)
        == "mindspore.X.OwnError: no"
    )
    assert error_line("one\ntwo\n", 1) == "two"
    assert error_line("", -9) == "exit status -9"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (
            -9,
            "error: a was ended by SIGKILL, as when memory is short; it has no result, and",
        ),
        (-15, "error: a was ended by SIGTERM; it has no result, and the same command repeats it"),
        (-63, "error: a was ended by signal 63; it has no result"),
        # Of a command that handled SIGINT.
        (130, "error: a was ended by SIGINT; it has no result"),
        (2, "error: a could not start: no folder"),
    ],
)
def test_an_end_that_says_nothing_of_the_run_ends_the_command(status: int, sentence: str) -> None:
    with pytest.raises(SystemExit) as ended:
        error_of_run("a", "noise\nerror: no folder\n", status)
    assert str(ended.value).startswith(sentence)


@pytest.mark.parametrize("status", [1, 3, 255])
def test_other_failures_are_the_runs_own(status: int) -> None:
    assert (
        error_of_run("a", "Traceback\nRuntimeError: broken\n\nstack.cc:1\n", status) == "RuntimeError: broken"
    )


@pytest.mark.parametrize("status", [-11, 128 + 6])
def test_a_crash_is_the_runs_own(status: int) -> None:
    assert error_of_run("a", "", status) in ("ended by SIGSEGV", "ended by SIGABRT")
