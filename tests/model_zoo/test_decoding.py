"""Decoding: formats, broken files, and crops."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from model_zoo.common.data.decoding import (
    BrokenImageError,
    center_crop_box,
    decode,
    evaluation_crop,
    random_crop_box,
    training_crop,
)
from tests.model_zoo.synthetic_data import synthetic_image


def encoded(image: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P"])
def test_every_image_becomes_rgb(mode: str) -> None:
    image = synthetic_image(3).convert(mode)
    decoded = decode(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert (decoded.mode, decoded.size) == ("RGB", (40, 30))
    # A JPEG of a smooth image is off by a few steps of 255.
    np.testing.assert_allclose(np.asarray(decoded, int), np.asarray(image.convert("RGB"), int), atol=8)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP"])
def test_truncated_file_counts_as_broken(form: str) -> None:
    content = encoded(synthetic_image(3), form)
    decode(content)
    with pytest.raises(BrokenImageError, match=r"^can't be decoded: |^is not one of JPEG, PNG, BMP, WEBP"):
        decode(content[: len(content) * 2 // 3])


@pytest.mark.parametrize("content", [b"", b"no image at all", encoded(synthetic_image(1), "TIFF")])
def test_unknown_format_counts_as_broken(content: bytes) -> None:
    with pytest.raises(BrokenImageError, match=r"^is not one of JPEG, PNG, BMP, WEBP$"):
        decode(content)


def test_random_crops_lie_inside_and_have_the_requested_areas_and_aspect_ratios() -> None:
    generator = random.Random(1)
    boxes = np.array([random_crop_box(100, 80, 0.2, generator) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    across, down = right - left, bottom - top
    # Crops with room on both sides reach either edge.
    wide, high = across < 90, down < 70
    assert (left[wide].min(), top[high].min()) == (0, 0)
    assert (right[wide].max(), bottom[high].max()) == (100, 80)
    shares = across * down / 8000
    # Sides are rounded to whole pixels: half a pixel of at least 34.
    assert shares.min() == pytest.approx(0.2, abs=0.01)
    assert 0.9 < shares.max() <= 1
    assert (across / down).min() == pytest.approx(3 / 4, abs=0.03)
    assert (across / down).max() == pytest.approx(4 / 3, abs=0.03)
    # Uniform areas have the mean 0.6; those near 1 fit less often.
    assert 0.5 < shares.mean() < 0.6


def test_without_a_fitting_crop_the_largest_centered_one_is_used() -> None:
    # No crop of at least nine tenths of this strip is as wide as 3/4 of its height.
    assert random_crop_box(100, 10, 0.9, random.Random(1)) == (43, 0, 56, 10)
    assert random_crop_box(10, 100, 0.9, random.Random(1)) == (0, 43, 10, 56)


def test_the_center_crop_equals_that_of_the_resized_image() -> None:
    assert center_crop_box(400, 300, 0.5) == (125, 75, 275, 225)
    image = synthetic_image(2, 400, 300)
    scaled = image.resize((128, 96), Image.Resampling.BILINEAR).crop((24, 8, 104, 88))
    view = evaluation_crop(image, 80, 96)
    # Both sample the same smooth image; each rounds to a byte, the longer way twice.
    np.testing.assert_allclose(np.asarray(view, int), np.asarray(scaled, int), atol=2)


def test_a_training_crop_is_one_crop_flipped_or_not() -> None:
    image = synthetic_image(4, 60, 50)
    turned = 0
    for key in range(40):
        view = np.asarray(training_crop(image, 16, 0.25, True, random.Random(key)), int)
        plain = np.asarray(training_crop(image, 16, 0.25, False, random.Random(key)), int)
        assert view.shape == (16, 16, 3)
        # Red grows to the right in the image.
        assert (plain[:, -1, 0] > plain[:, 0, 0]).all()
        mirrored = view[0, -1, 0] < view[0, 0, 0]
        turned += mirrored
        np.testing.assert_array_equal(view, plain[:, ::-1] if mirrored else plain)
    # 20 expected with a standard deviation of 3.2.
    assert 8 < turned < 32
