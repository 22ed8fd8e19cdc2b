"""The tutorial runs, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import blocks, run
from tests.support.native import skip_without_native


def test_tutorial_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    skip_without_native("kronecker_refresh")
    output = run("tutorial.md", tmp_path)
    for text in blocks("tutorial.md", "text"):
        assert text in output
    accuracies = [float(number) for number in re.findall(r"accuracy': ([\d.]+)", output)]
    assert len(accuracies) == 4
    # What the page says of each run, with room for another machine's rounding.
    for measured, stated in zip(accuracies, (0.89, 0.90, 0.87, 0.90)):
        assert abs(measured - stated) < 0.04
