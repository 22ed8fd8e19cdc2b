"""Tables and curves of the comparison, against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.comparison.curves import (
    best_points,
    curve_of,
    level_value,
    seconds_to_level,
    seconds_until,
    shown_name,
)
from benchmarks.comparison.picture import draw
from benchmarks.comparison.table import clock_table, final_table, grid_table
from benchmarks.comparison.tasks import LOSS, METRIC, TASKS, TRAIN_METRIC, Level

CONVNET, AUTOENCODER, GPT = (TASKS[name] for name in ("convnet_cifar10", "autoencoder_mnist", "gpt_stdlib"))
TIMES = {name: {"step_ms": "100.0", "compile_seconds": "3.2"} for name in ("sgdm", "kfac", "adam")}


def row(
    method: str, *entries: list[float], point: str = "", seed: int = 1, budget: str = "1", error: str = ""
) -> dict[str, str]:
    """A run of 100 ms per step."""
    return {
        "method": method,
        "point": point or CONVNET.methods.get(method, CONVNET.methods["sgdm"]).points()[0],
        "seed": str(seed),
        "steps": "20",
        "step_ms": "100.0",
        "warm_up_seconds": "0.0",
        "budget": budget,
        "curve": json.dumps(entries),
        "error": error,
    }


def cells(lines: list[str], method: str) -> list[str]:
    line = next(line for line in lines if line.startswith(f"| {method} |"))
    return line.strip("| ").split(" | ")


def test_seconds_are_interpolated_between_evaluations() -> None:
    run = row("kfac", [10, 3.0, 0.5], [20, 1.5, 0.7])
    assert curve_of(run, LOSS) == [(1.0, 3.0), (2.0, 1.5)]
    assert curve_of({**run, "warm_up_seconds": "0.5"}, LOSS) == [(1.5, 3.0), (2.5, 1.5)]
    assert curve_of(run, TRAIN_METRIC) == []
    assert seconds_until(curve_of(run, LOSS), 2.25, True) == pytest.approx(1.5)
    assert seconds_until(curve_of(run, METRIC), 0.6, False) == pytest.approx(1.5)
    assert seconds_until(curve_of(run, METRIC), 0.3, False) == 1.0
    assert seconds_until(curve_of(run, METRIC), 0.9, False) == math.inf


def test_the_best_point_has_the_best_metric_of_those_that_finished() -> None:
    kfac, adamw = CONVNET.methods["kfac"].points(), CONVNET.methods["adamw"].points()
    rows = [row("kfac", [10, 1.0, 0.5], point=kfac[0]), row("kfac", [10, 1.5, 0.6], point=kfac[5])]
    rows += [
        row("kfac", [10, 1.4, 0.6], point=kfac[7]),
        row("kfac", [10, 0.1, 0.9], point=kfac[3], error="NaN"),
    ]
    rows += [row("adamw", [10, 1.0, 0.4], point=adamw[0]), row("sgdm", error="NaN")]
    assert best_points(CONVNET, rows) == {"adamw": adamw[0], "kfac": kfac[7]}
    # The texts' runs were selected by the loss, reconstructions by the error, of which less is better.
    assert best_points(replace(CONVNET, selected_by=LOSS), rows)["kfac"] == kfac[0]
    assert best_points(AUTOENCODER, [replace_point(run) for run in rows[:3]])["kfac"] == "a"
    assert GPT.selected_by == LOSS
    assert CONVNET.methods["kfac"].edges(kfac[0]) == ["optimizer.damping"]
    assert CONVNET.methods["kfac"].edges(kfac[4]) == []


def replace_point(run: dict[str, str]) -> dict[str, str]:
    return {**run, "point": "a" if "0.5]" in run["curve"] else "b"}


def three(method: str, *seconds: float | None) -> list[dict[str, str]]:
    """A run per seed that goes from accuracy 0 at second 0 to 0.8 at the given second; None for never."""
    return [
        row(method, [0, 2.0, 0.0], [10 * (second or 1), 1.0, 0.8 if second else 0.4], seed=seed)
        for seed, second in enumerate(seconds, start=1)
    ]


def test_the_clock_has_medians_ranges_and_ratios_to_sgdm() -> None:
    finals = {
        "sgdm": three("sgdm", 8, 4, 6),
        "kfac": three("kfac", 2, 1, None),
        "adamw": three("adamw", 3, None, None),
    }
    task = replace(CONVNET, levels=(Level("test error 20 %", METRIC, 0.8), Level("never", METRIC, 0.9)))
    lines = clock_table(task, finals)
    assert lines[0] == "| method | test error 20 % | never |"
    assert cells(lines, "sgdm") == ["sgdm", "6.0 (4.0 to 8.0), 1.00", "not reached"]
    assert cells(lines, "kfac") == ["kfac", "2.0 (1.0 to 2.0) (2 of 3 seeds), 0.33", "not reached"]
    assert cells(lines, "adamw") == ["adamw", "not reached (1 of 3 seeds)", "not reached"]
    # Without the reference there is no ratio.
    del finals["sgdm"]
    assert cells(clock_table(task, finals), "kfac")[1] == "2.0 (1.0 to 2.0) (2 of 3 seeds)"


def test_a_failed_seed_reaches_nothing() -> None:
    rows = three("kfac", 2, 1, 1)
    rows[1]["error"] = "NaN"
    level = Level("", METRIC, 0.8)
    assert seconds_to_level(CONVNET, level, 0.8, rows) == [1.0, 2.0, math.inf]


def test_a_level_of_a_method_is_the_median_of_its_seeds() -> None:
    runs = [
        row("sgdm", [5, 1, 9.0 + seed], [10, 1, 20.0 + seed], seed=seed, budget=budget)
        for seed in (1, 2, 3)
        for budget in ("1", "2")
    ]
    runs += [row("sgdm", [10, 1, 0.0], seed=4, budget="2", error="NaN")]
    runs[1]["curve"] = json.dumps([[10, 1, 50.0]])
    last, best = Level("", METRIC, of="sgdm"), Level("", METRIC, of="sgdm", best=True)
    # Seed 1 ended at 50 with the longer budget.
    assert level_value(AUTOENCODER, last, {"sgdm": runs}) == 23.0
    assert level_value(AUTOENCODER, best, {"sgdm": runs}) == 11.0
    assert level_value(CONVNET, best, {"sgdm": runs}) == 23.0
    assert level_value(AUTOENCODER, last, {"kfac": runs}) is None
    lines = clock_table(replace(AUTOENCODER, levels=(Level("its error", METRIC, of="adam"),)), {"sgdm": runs})
    assert lines[0] == "| method | its error (not finished) |"
    assert cells(lines, "sgdm") == ["sgdm", "not finished"]


def test_of_several_budgets_the_fastest_counts() -> None:
    short, long = three("kfac", 2, 3, None), three("kfac", 5, 6, 7)
    for run in long:
        run["budget"] = "9"
    level = Level("", METRIC, 0.8)
    assert seconds_to_level(CONVNET, level, 0.8, short + long) == [2.0, 3.0, math.inf]
    # A budget whose seeds are not finished does not count yet.
    assert seconds_to_level(CONVNET, level, 0.8, short[:1] + long) == [5.0, 6.0, 7.0]
    short[0]["error"] = "NaN"
    assert seconds_to_level(CONVNET, level, 0.8, short + long) == [5.0, 6.0, 7.0]


def test_the_table_of_ends_shows_errors_and_seeds() -> None:
    finals = {
        "sgdm": [row("sgdm", [10, 1.0, 0.7, 0.9, 0.75])],
        "kfac": [
            row("kfac", [10, 0.5, 0.8, 0.1, 0.9], seed=1),
            row("kfac", [10, 0.7, 0.84, 0.2, 0.92], seed=2),
            row("kfac", seed=3, error="NaN"),
        ],
    }
    times = {**TIMES, "kfac": {"step_ms": "125.0", "compile_seconds": "4"}}
    for run in finals["kfac"]:
        run["step_ms"] = "125.0"
    lines = final_table(CONVNET, finals, times)
    assert lines[0].endswith(
        "| of sgdm's | compile s | budget | steps | seeds | test error, % | test loss | training error, % |"
    )
    assert cells(lines, "sgdm")[2:] == [
        "100.0",
        "1.00",
        "3",
        "1 s",
        "20",
        "1",
        "30.0000",
        "1.0000",
        "25.0000",
    ]
    assert cells(lines, "kfac")[2:] == [
        "125.0",
        "1.25",
        "4",
        "1 s",
        "20",
        "2 (1 failed)",
        "18.0000 (16.0000 to 20.0000)",
        "0.6000 (0.5000 to 0.7000)",
        "9.0000 (8.0000 to 10.0000)",
    ]
    failed = {"kfac": [row("kfac", error="NaN")]}
    assert cells(final_table(CONVNET, failed, TIMES), "kfac")[7:] == ["0 (1 failed)", "failed", "failed"]


def test_the_table_of_the_grid_names_what_trials_were_evaluated_on() -> None:
    trials = [row("kfac", [10, 0.5, 0.8]), row("sgdm", error="the loss is nan at step 3")]
    lines = grid_table(CONVNET, trials)
    assert lines[0] == "| method | point | validation error, % | validation loss | steps |"
    assert cells(lines, "kfac")[2:] == ["20.0000", "0.5000", "20"]
    assert "the loss is nan at step 3" in cells(lines, "sgdm")
    assert shown_name(AUTOENCODER, TRAIN_METRIC) == "training reconstruction error"
    assert shown_name(TASKS["resnet20_cifar10"], METRIC) == "test accuracy, %"


def test_the_picture_has_a_line_per_method_and_dots_of_shorter_budgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib.pyplot as plt

    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    finals = {
        "sgdm": [
            row("sgdm", [5, 1.0, 0.5, 1.0, 0.6], [10, 1.0, 0.7, 1.0, 0.8], seed=seed) for seed in (1, 2)
        ],
        "kfac": [row("kfac", [5, 1.0, 0.5, 1.0, 0.6])],
        "adamw": [row("adamw", error="NaN")],
    }
    finals["sgdm"].append(row("sgdm", [20, 1.0, 0.9, 1.0, 0.95], budget="2"))
    draw("convnet", CONVNET, finals, tmp_path / "curves.png")
    test, train = drawn[0].axes
    lines = [line for line in test.lines if line.get_marker() == "None"]
    assert [line.get_label() for line in lines] == ["sgdm", "kfac"]
    assert list(lines[0].get_xdata()) == [2.0]
    assert lines[0].get_ydata() == pytest.approx([10.0])
    (dot,) = (line for line in test.lines if line.get_marker() == "o")
    assert [*dot.get_xdata(), *dot.get_ydata()] == pytest.approx([1.0, 30.0])
    assert dot.get_color() == lines[0].get_color()
    assert train.lines[-1].get_ydata() == pytest.approx([40.0])
    assert train.get_ylabel() == "training error, %"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
