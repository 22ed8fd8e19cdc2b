"""The signs of the capture check: one hash, the same in Python, in C++ and in the oracle."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ms_kfac.ops.statistics.signs import COLUMNS, ROWS, TAPS, column_signs, signs
from tests.oracle.capture_check import sign

INTERFACE = Path(__file__).resolve().parents[2] / "ms_kfac" / "kernels" / "interface"
COUNT = 3000
SOURCE = """
#include "signs.h"
#include <cstdio>
#include <initializer_list>
int main() {
  for (ms_kfac::SignAxis axis : {ms_kfac::kRows, ms_kfac::kColumns, ms_kfac::kTaps})
    for (uint32_t index = 0; index < COUNT; ++index) std::putchar(ms_kfac::sign(axis, index) > 0 ? '+' : '-');
  for (uint32_t index : {0x7fffffffu, 0x80000000u, 0xffffffffu})
    std::putchar(ms_kfac::sign(ms_kfac::kRows, index) > 0 ? '+' : '-');
}
"""


@pytest.mark.parametrize("axis", [ROWS, COLUMNS, TAPS])
def test_equal_the_definition(axis: int) -> None:
    np.testing.assert_array_equal(signs(axis, COUNT), [sign(axis, index) for index in range(COUNT)])


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_equal_those_of_the_kernels(tmp_path: Path) -> None:
    source, program = tmp_path / "signs.cc", tmp_path / "signs"
    source.write_text(SOURCE.replace("COUNT", str(COUNT)))
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{INTERFACE}", str(source)]
    subprocess.run([*command, "-o", str(program)], check=True)
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    found = np.array([1 if letter == "+" else -1 for letter in printed])
    expected = [signs(axis, COUNT) for axis in (ROWS, COLUMNS, TAPS)]
    # Unsigned arithmetic wraps around; the last indices tell it from signed.
    expected.append(np.array([sign(ROWS, index) for index in (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)]))
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_columns_and_taps_factor() -> None:
    found = column_signs((4, 5, 2, 3)).reshape(5, 6)
    np.testing.assert_array_equal(found, np.outer(signs(COLUMNS, 5), signs(TAPS, 6)))
    np.testing.assert_array_equal(column_signs((4,)), signs(COLUMNS, 1) * signs(TAPS, 1))


def test_are_balanced_and_uncorrelated() -> None:
    """A constant gradient, or one that repeats from axis to axis, must not hide a difference."""
    axes = [signs(axis, COUNT) for axis in (ROWS, COLUMNS, TAPS)]
    # Sums of 3,000 random signs have a standard deviation of 55.
    for index, first in enumerate(axes):
        assert abs(first.sum()) < 4 * 55
        for second in axes[index + 1 :]:
            assert abs(np.sum(first * second)) < 4 * 55
        assert abs(np.sum(first[:-1] * first[1:])) < 4 * 55
