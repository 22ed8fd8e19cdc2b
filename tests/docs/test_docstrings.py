"""The examples of public docstrings run, all in one process."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS

NAMES = sorted(
    name
    for page in (DOCS / "api").glob("*.md")
    for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M)
)


def find(name: str) -> Any:
    owner, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(owner), attribute)
    except ImportError:
        return getattr(find(owner), attribute)


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name: str, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finder = doctest.DocTestFinder(recurse=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in finder.find(find(name), name, globs={}):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
