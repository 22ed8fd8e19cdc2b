"""The code of pages other than the tutorial and extending runs, each page as one program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks, run, run_program
from tests.support.native import skip_without_native

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", ["checkpoints.md", "mixed_precision.md", "own_loop.md"])
def test_page_runs(page: str, tmp_path: Path) -> None:
    run(page, tmp_path)


def test_migrated_code_runs(tmp_path: Path) -> None:
    """What stands under "After" on the page about migration, each on a new network."""
    text = (DOCS / "migration.md").read_text(encoding="utf-8")
    after = re.findall(r"^\*\*After\*\*\n\n```py\n(.*?)^```$", text, re.M | re.S)
    assert len(after) == 4
    program = [*blocks("migration.md", "python"), "lr_array, damping_array = [0.1, 0.05], [0.03, 0.02]\n"]
    for code in after:
        program.append(f"net = create_network()\n{code}\nprint(optimizer.summary())\n")
    assert run_program("\n".join(program), tmp_path).count("2 layers preconditioned") == 8


_PREAMBLE = """
import numpy as np
from mindspore.dataset import NumpySlicesDataset
from sklearn.datasets import load_digits

images, labels = (array[:300] for array in load_digits(return_X_y=True))
images, labels = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int32)
train_set = NumpySlicesDataset((images, labels), ["image", "label"], shuffle=False).batch(100)
"""


def test_readme_prints_what_it_shows(tmp_path: Path) -> None:
    skip_without_native("kronecker_refresh")
    output = run_program(_PREAMBLE + "\n".join(blocks("../README.md", "python")), tmp_path)
    for text in blocks("../README.md", "text"):
        assert text in output


def test_both_readmes_have_the_same_code() -> None:
    for language in ("python", "text", "diff", "bibtex"):
        assert blocks("../README.md", language) == blocks("../README.zh-CN.md", language)
    commands = [
        [
            line.partition("#")[0].rstrip()
            for block in blocks(f"../{readme}", "bash")
            for line in block.split("\n")
        ]
        for readme in ("README.md", "README.zh-CN.md")
    ]
    assert commands[0] == commands[1]
