"""The checker of wording finds what it should, where it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


def check(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/check_prose.py"), *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "text",
    [
        "They wait for ever.",
        "A sum in the place\nof a mean.",
        "It prints a line an epoch.",
        "The composed form runs.",
        "A weight beside it.",
        "Nobody asks for it.",
        "word " * 41 + "end.",
    ],
)
def test_markdown(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{text}\n", encoding="utf-8")
    done = check(page)
    assert done.returncode == 1 and done.stdout.startswith(f"{page}:3: "), done.stdout + done.stderr


def test_code_and_links_are_not_prose(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "One `for ever` here.\n\n```text\nfor ever\n```\n\n| one | two |\n|---|---|\n"
        + "| "
        + "word " * 50
        + "| b |\n\n"
        + "- "
        + "word " * 30
        + "\n- "
        + "word " * 30
        + "\n",
        encoding="utf-8",
    )
    assert check(page).returncode == 0, check(page).stdout


def test_python_by_docstrings_and_comments_alone(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""Fine."""\n\nx = "for ever"  # dearer\n', encoding="utf-8")
    done = check(tmp_path)
    assert done.stdout.count("\n") == 1 and "module.py:3" in done.stdout


def test_folders_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("for ever\n", encoding="utf-8")
    assert check(tmp_path, "--exclude", str(tmp_path)).returncode == 0
    assert check(tmp_path / "none.md").returncode == 2
