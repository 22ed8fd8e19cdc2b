"""The library of CPU kernels loads into every Python, and on systems as old as its wheel's tag says."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from ms_kfac.kernels.library import library
from tests.support.native import needs_native

# What manylinux_2_28 allows (PEP 600): glibc 2.28, and the libstdc++ of GCC 8.
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}

pytestmark = needs_native("momentum_step")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="older versions of functions are named for x86-64")
def test_no_function_is_newer_than_the_wheels_tag() -> None:
    names = Path(library("CPU").path).read_bytes()
    for prefix, newest in NEWEST.items():
        found = re.findall(rb"\0" + prefix.encode() + rb"_([0-9.]+)(?=\0)", names)
        assert found, prefix
        versions = [tuple(map(int, text.split(b"."))) for text in found]
        assert max(versions) <= newest, prefix


def test_no_function_of_python_is_used() -> None:
    path = Path(library("CPU").path)
    assert path.name == "_cpu.so"
    assert not re.search(rb"\0_?Py[A-Z]\w*\0", path.read_bytes())
