"""compute-sanitizer looks at every operator that a GPU has a kernel for."""

from __future__ import annotations

import re
import subprocess

from benchmarks.gpu.sanitizer import PROGRAM, TESTS
from benchmarks.gpu.sources import ROOT


def test_every_operator_has_a_test() -> None:
    sources = (ROOT / "ms_kfac" / "kernels" / "cuda" / "operators").glob("*.cu")
    exports = [re.findall(r"MS_KFAC_OPERATOR\((\w+),", source.read_text()) for source in sources]
    assert sorted(TESTS) == sorted(name for names in exports for name in names)


def test_the_tests_exist() -> None:
    found = subprocess.run([*PROGRAM, "--collect-only"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert all(test in found.stdout for test in TESTS.values())
