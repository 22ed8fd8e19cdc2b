"""Runs the code blocks of a page as one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page, as it names their language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
    assert found, f"{page} has no block of {language}"
    return found


def run(page: str, folder: Path) -> str:
    """The output of a page's Python blocks."""
    return run_program("\n".join(blocks(page, "python")), folder)


def run_program(text: str, folder: Path, timeout: float = 600.0) -> str:
    """The output of a program, which runs in a folder of its own.

    It goes into a file, as MindSpore reads the source of what it compiles, and runs in a process of its own.
    """
    program = folder / "page.py"
    program.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
