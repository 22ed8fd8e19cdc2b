"""Tests when the kernels are compiled, and for which architectures."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.gpu.build import KERNELS, architectures, is_present
from ms_kfac.kernels.fingerprint import fingerprint


@pytest.mark.parametrize(
    ("sources", "present"), [(fingerprint(KERNELS / "interface", KERNELS / "cuda"), True), ("others", False)]
)
def test_a_library_of_other_sources_is_built_again(sources: str, present: bool, tmp_path: Path) -> None:
    library = tmp_path / "_cuda.so"
    text = f'extern "C" const char* ms_kfac_sources() {{ return "{sources}"; }}'
    command = ["g++", "-x", "c++", "-", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run(command, input=text, text=True, check=True)
    assert is_present(library) is present


def test_missing_library_is_built(tmp_path: Path) -> None:
    assert not is_present(tmp_path / "_cuda.so")


def test_each_architecture_is_compiled_for_once() -> None:
    assert architectures("10.0\n9.0\n9.0\n") == ["90", "100"]
    assert architectures("") == []
