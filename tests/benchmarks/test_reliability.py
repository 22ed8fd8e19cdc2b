"""The reliability benchmark: what counts as held, growth of memory, kills."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.reliability import __main__ as command
from benchmarks.reliability import soak as soak_module
from benchmarks.reliability.kills import kill_at, kill_in_checkpoint
from benchmarks.reliability.soak import growth, soak
from benchmarks.reliability.suites import SUITES, run_suite
from benchmarks.reliability.tally import Tally, table

ROOT = Path(__file__).parents[2]


def test_the_growth_leaves_out_the_first_quarter() -> None:
    steps = range(100, 4100, 100)
    sizes = [5e8 if step <= 1000 else 1e6 + 12.5 * step for step in steps]
    assert growth(steps, sizes) == pytest.approx(12.5)


def test_a_method_holds_if_it_grows_little_more_than_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    slopes = {"Momentum": 3000, "KFAC": 4000, "SKFAC": 4100}

    def run(method: str, mode: str, steps: int) -> dict[str, object]:
        if method == "SPNGD":
            return {"error": "killed"}
        read = range(0, steps, steps // 20)
        return {
            "steps": list(read),
            "bytes": [slopes[method] * at for at in read],
            "finite": (method, mode) != ("KFAC", "graph"),
        }

    monkeypatch.setattr(soak_module, "run", run)
    graph, pynative = soak()
    assert (graph.kind, graph.tried, graph.held) == ("soak, 20,000 steps, graph mode", 3, 0)
    assert (pynative.tried, pynative.held) == (3, 1)
    assert pynative.failures == ["SPNGD: killed", "SKFAC: 1100 bytes per step beyond nn.Momentum's"]
    assert "KFAC: the loss is not finite" in graph.failures


def test_a_soak_reads_memory_in_a_process_of_its_own() -> None:
    result = soak_module.run("KFAC", "graph", 80)
    assert result["steps"] == list(range(2, 81, 2))
    assert min(result["bytes"]) > 1e7
    assert result["finite"]


def test_suites_are_counted_by_inputs(tmp_path: Path) -> None:
    (tmp_path / "test_made.py").write_text(
        textwrap.dedent(
            """
            import pytest

            def test_many(record_property):
                record_property("inputs", 40)

            def test_broken():
                raise ValueError("of no use")

            @pytest.mark.skip(reason="not here")
            def test_skipped():
                pass
            """
        )
    )
    line = run_suite("made", [str(tmp_path), "--rootdir", str(tmp_path), "-c", "/dev/null"])
    assert (line.tried, line.held, line.skipped) == (41, 40, 1)
    assert line.failures == ["test_broken: ValueError: of no use"]
    with pytest.raises(RuntimeError, match="pytest failed"):
        run_suite("made", ["--no-such-option"])


@pytest.mark.parametrize("part", SUITES)
def test_suites_name_tests_that_exist(part: str) -> None:
    for test in SUITES[part][1]:
        assert (ROOT / test.partition("::")[0]).exists(), test


def test_the_table_lists_failures_below() -> None:
    text = table([Tally("kills", 3, 2, failures=["it differs"]), Tally("soak", 1, 1, 0, "5 B")])
    assert text.splitlines()[2:] == [
        "| kills | 3 | 2 | 0 |  |",
        "| soak | 1 | 1 | 0 | 5 B |",
        "",
        "- kills: it differs",
    ]


@pytest.mark.parametrize("held", [2, 3])
def test_the_exit_status_says_whether_all_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(command, "run_suite", lambda kind, tests: Tally(kind, 3, held))
    assert command.main(["--parts", "ranks", "--output", str(tmp_path)]) == int(held < 3)
    assert f"| several ranks | 3 | {held} | 0 |" in (tmp_path / "table_ranks.md").read_text()
    # The table of all parts is written by a command that ran all of them.
    assert not (tmp_path / "table.md").exists()


def sleeper(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


def test_kills_at_a_moment() -> None:
    assert kill_at(sleeper("import time; time.sleep(60)"), 0.1)
    assert not kill_at(sleeper(""), 60)


def test_kills_in_a_checkpoint(tmp_path: Path) -> None:
    code = f"""
import pathlib, time
folder = pathlib.Path({str(tmp_path)!r})
for step in (2, 4, 6):
    written = folder / f"unfinished_{{step:08d}}"
    written.mkdir()
    time.sleep(0.3)
    written.rename(folder / f"step_{{step:08d}}")
"""
    assert kill_in_checkpoint(sleeper(code), tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000002", "unfinished_00000004"]
    # What the killed process left is no checkpoint of the next one.
    assert not kill_in_checkpoint(sleeper("import time; time.sleep(0.3)"), tmp_path, 1)
