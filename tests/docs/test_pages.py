"""The code of pages other than the tutorial and extending runs, each page as one program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks, run, run_program

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", ["checkpoints.md", "mixed_precision.md"])
def test_page_runs(page: str, tmp_path: Path) -> None:
    run(page, tmp_path)


def test_migrated_code_runs(tmp_path: Path) -> None:
    """What stands under "After" on the page about migration; each is one optimizer on a network of its own."""
    text = (DOCS / "migration.md").read_text(encoding="utf-8")
    after = re.findall(r'^=== "After"\n\n    ```py\n(.*?)^    ```$', text, re.M | re.S)
    assert len(after) == 4
    program = [*blocks("migration.md", "python"), "lr_array, damping_array = [0.1, 0.05], [0.03, 0.02]\n"]
    for code in after:
        lines = "\n".join(line[4:] for line in code.splitlines())
        program.append(f"net = create_network()\n{lines}\nprint(optimizer.summary())\n")
    assert run_program("\n".join(program), tmp_path).count("2 layers preconditioned") == 8
