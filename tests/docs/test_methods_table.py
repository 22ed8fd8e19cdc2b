"""The table of methods agrees with what the methods refuse."""

from __future__ import annotations

import re

from ms_kfac.optim.methods import METHODS
from tests.docs.pages import DOCS


def test_the_table_says_which_methods_need_one_device() -> None:
    table = (DOCS / "methods/index.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| \[(\w+)\]\(.*\| ([^|]+) \|$", table, re.MULTILINE))
    expected = {}
    for method in METHODS.values():
        options = method.options.items()
        refused = [f'not `{name}="{word}"`' for name, option in options for word in option.single_device]
        expected[method.class_name] = "no" if method.single_device else "; ".join(["yes", *refused])
    assert said == expected
