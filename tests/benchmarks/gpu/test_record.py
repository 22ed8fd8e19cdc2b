"""Tests the record of a part, also after the part is killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu.record import Record, read_record


def test_lines_are_there_as_soon_as_they_are_added(tmp_path: Path) -> None:
    record = Record(tmp_path / "part.jsonl")
    record.add("time", of="a", milliseconds=[1.0, 2.5])
    assert read_record(record.path) == [{"what": "time", "of": "a", "milliseconds": [1.0, 2.5]}]


def test_every_record_of_a_dry_run_is_marked(tmp_path: Path) -> None:
    record = Record(tmp_path / "part.jsonl", dry_run=True)
    record.add("time", milliseconds=1.0)
    with record.attempt("anything"):
        raise RuntimeError
    assert [line["dry_run"] for line in read_record(record.path)] == [True, True]


def test_numbers_that_json_lacks_become_text(tmp_path: Path) -> None:
    record = Record(tmp_path / "part.jsonl")
    record.add("error", values=[float("nan"), {"worst": float("inf")}])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = json.loads(record.path.read_text(), parse_constant=refuse)
    assert line["values"] == ["nan", {"worst": "inf"}]


def test_error_is_recorded_and_later_work_continues(tmp_path: Path) -> None:
    record = Record(tmp_path / "part.jsonl")
    for shape in ("good", "bad", "other"):
        with record.attempt(shape):
            if shape == "bad":
                raise RuntimeError("out of memory")
            record.add("time", of=shape)
    lines = read_record(record.path)
    assert [line["of"] for line in lines] == ["good", "bad", "other"]
    assert lines[1]["what"] == "failure"
    assert lines[1]["message"] == "RuntimeError: out of memory"
    assert lines[1]["place"].startswith("test_record.py:")
    assert record.failures == 1


def test_exit_exceptions_are_not_swallowed(tmp_path: Path) -> None:
    record = Record(tmp_path / "part.jsonl")
    with pytest.raises(KeyboardInterrupt), record.attempt("anything"):
        raise KeyboardInterrupt


def test_a_line_that_was_cut_off_does_not_spoil_the_others(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl"
    Record(path).add("time", of="a")
    with path.open("a") as file:
        file.write('{"what": "time", "of')
    assert [line["what"] for line in read_record(path)] == ["time", "cut off"]
    assert read_record(tmp_path / "nothing.jsonl") == []


@pytest.mark.parametrize(("error", "failures"), [(0.5, 0), (1.0, 0), (1.5, 1), (float("nan"), 1)])
def test_an_error_above_its_threshold_is_a_failure(error: float, failures: int, tmp_path: Path) -> None:
    record = Record(tmp_path / "part.jsonl")
    record.check("sums", error=error, threshold=1.0, rows=3)
    first, *others = read_record(record.path)
    assert (first["what"], first["of"], first["threshold"], first["rows"]) == ("error", "sums", 1.0, 3)
    assert [line["of"] for line in others] == ["sums"] * failures
    assert record.failures == failures
