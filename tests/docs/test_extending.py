"""The examples of the page about extending run."""

from __future__ import annotations

from pathlib import Path

from tests.docs.pages import run


def test_examples_run(tmp_path: Path) -> None:
    run("extending.md", tmp_path)
