"""The table of operators has all operators, and the kernels that there are."""

from __future__ import annotations

import re

from ms_kfac.kernels.registry import REGISTRY
from tests.docs.pages import DOCS, ROOT

KERNELS = ROOT / "ms_kfac" / "kernels"


def test_the_table_says_which_operators_have_kernels() -> None:
    table = (DOCS / "operators.md").read_text(encoding="utf-8")
    said = {
        name: (cpu == "yes", gpu != "fallback")
        for name, cpu, gpu in re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    }
    there = {
        name: (
            (KERNELS / f"cpu/operators/{name}.cc").exists(),
            (KERNELS / f"cuda/operators/{name}.cu").exists(),
        )
        for name in REGISTRY
    }
    assert said == there
