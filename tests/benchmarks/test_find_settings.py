"""The benchmark of find_settings: what it trains with is what it found."""

from __future__ import annotations

import math

import pytest

from benchmarks.find_settings import DEFAULTS, main


def test_the_rows_of_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    shorter = ["--steps", "4", "--train-steps", "3", "--seeds", "1"]
    shorter += ["--set", "network.depth=1", "--set", "network.width=16"]
    assert main(["--task", "vit_digits", "--tuned", "1e-4", "3e-7", *shorter]) == 0
    search, trainings = capsys.readouterr().out.split("\n\n")
    best = [float(text) for text in search.splitlines()[3].split()[:2]]
    rows = [line.split()[-5:] for line in trainings.splitlines()[2:]]
    pairs = [[float(text) for text in row[:2]] for row in rows]
    assert pairs[0] == list(DEFAULTS)
    assert pairs[1] == best
    assert pairs[2] == pytest.approx([best[0], best[1] / 3], rel=1e-2)
    assert pairs[3] == [1e-4, 3e-7]
    assert all(math.isfinite(float(text)) and row[2] == row[4] for row in rows for text in row[2:])
