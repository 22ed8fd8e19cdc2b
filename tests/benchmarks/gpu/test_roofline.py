"""Operations, bytes and minimum time of a covariance."""

from __future__ import annotations

import pytest

from benchmarks.gpu.resnet50_layers import Layer
from benchmarks.gpu.roofline import Peaks, Work, gradient_work, input_work, syrk_work


def test_a_symmetric_product_computes_each_entry_once() -> None:
    rows, dimension = 5, 3
    entries = [(i, j) for i in range(dimension) for j in range(i + 1)]
    work = syrk_work(rows, dimension, rows * dimension, 2)
    assert work.operations == 2 * rows * len(entries)
    assert work.bytes == 2 * rows * dimension + 2 * 4 * dimension**2


def test_a_convolution_reads_its_input_once_however_often_patches_repeat_it() -> None:
    layer = Layer("", inputs=2, outputs=4, image=6, kernel=3, stride=2)
    # 3 x 3 locations, patches of 2 x 9.
    assert input_work(layer, 5, 4) == Work(5 * 9 * 18 * 19, 4 * 5 * 2 * 36 + 8 * 18**2)
    assert gradient_work(layer, 5, 4) == Work(5 * 9 * 4 * 5, 4 * 5 * 4 * 9 + 8 * 4**2)


def test_a_dense_layer_has_the_homogeneous_coordinate_in_A_alone() -> None:
    layer = Layer("", inputs=3, outputs=2)
    assert input_work(layer, 7, 4) == Work(7 * 4 * 5, 4 * 7 * 3 + 8 * 16)
    assert gradient_work(layer, 7, 4) == Work(7 * 2 * 3, 4 * 7 * 2 + 8 * 4)


def test_the_slower_of_arithmetic_and_bytes_is_the_floor() -> None:
    peaks = Peaks({"float32": 1e6, "tf32": 8e6}, 1e6)
    work = Work(operations=4000, bytes=1000)
    assert peaks.floor_milliseconds(work, "float32") == pytest.approx(4.0)
    assert peaks.limit(work, "float32") == "operations"
    assert peaks.floor_milliseconds(work, "tf32") == pytest.approx(1.0)
    assert peaks.limit(work, "tf32") == "bytes"
