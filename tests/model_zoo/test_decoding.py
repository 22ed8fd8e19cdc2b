"""Decoding: formats, broken files, and crops."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

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


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P"])
def test_every_image_becomes_rgb(mode: str) -> None:
    image = synthetic_image(3).convert(mode)
    decoded = decode(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert (decoded.mode, decoded.size) == ("RGB", (40, 30))
    # A JPEG of a smooth image is off by a few steps of 255.
    np.testing.assert_allclose(np.asarray(decoded, int), np.asarray(image.convert("RGB"), int), atol=8)


def png(pixels: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of rows of samples; Pillow writes neither 16-bit colours nor greys of 2 and 4 bits."""
    height, width = pixels.shape[:2]
    if bits < 8:
        places = np.arange(8 // bits)[::-1] * bits
        rows = (pixels.reshape(height, -1, 8 // bits) << places).sum(2).astype(np.uint8)
    else:
        rows = pixels.reshape(height, -1).astype(f">u{bits // 8}")
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


GREYS16 = np.random.default_rng(5).integers(0, 65536, (6, 7))
GREYS16[0, :4] = [0, 255, 256, 65535]


@pytest.mark.parametrize(("colour", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("chunks", [(), ((b"tRNS", struct.pack(">H", 256)),)], ids=["", "transparent"])
def test_16_bits_are_scaled_to_8(colour: int, samples: int, chunks: tuple[tuple[bytes, bytes], ...]) -> None:
    if colour:
        chunks = ()
    decoded = np.asarray(decode(png(np.stack([GREYS16] * samples, 2), 16, colour, *chunks)), float)
    # The high byte is within one step of the exact value, and within half a step at the ends.
    assert np.abs(decoded - GREYS16[:, :, None] / 257).max() < 1
    np.testing.assert_array_equal(decoded[0, 3], 255)
    # The same pixels in grey and in colour are the same image.
    np.testing.assert_array_equal(decoded, np.repeat((GREYS16 // 256)[:, :, None], 3, 2))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_greys_of_few_bits_range_from_black_to_white(bits: int) -> None:
    most = 2**bits - 1
    pixels = np.arange(16).reshape(2, 8) % (most + 1)
    decoded = np.asarray(decode(png(pixels, bits, 0)))
    np.testing.assert_array_equal(decoded, np.repeat((pixels * 255 // most)[:, :, None], 3, 2))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_alpha_is_dropped_without_a_background(form: str) -> None:
    image = synthetic_image(3)
    with_alpha = image.copy()
    with_alpha.putalpha(Image.fromarray(np.arange(1200).reshape(30, 40).astype(np.uint8)))
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    np.testing.assert_array_equal(decode(encoded(with_alpha, form, **options)), image)


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
def test_palettes_are_looked_up_and_their_transparency_dropped(transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    colours = np.asarray(decode(encoded(image, "PNG", transparency=transparency)))
    np.testing.assert_array_equal(colours, [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]])


def test_cmyk_is_converted_without_a_profile() -> None:
    decoded = np.asarray(decode(encoded(Image.new("CMYK", (8, 8), (51, 102, 153, 51)), "JPEG", quality=100)))
    # (1 - C) (1 - K) of 255; JPEG rounds each of the four planes.
    exact = [255 * (1 - ink / 255) * (1 - 51 / 255) for ink in (51, 102, 153)]
    np.testing.assert_allclose(decoded, np.broadcast_to(exact, (8, 8, 3)), atol=2)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_exif_orientation_is_ignored(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(synthetic_image(3), form, exif=exif)
    assert Image.open(io.BytesIO(content)).getexif()[0x0112] == 6
    assert decode(content).size == (40, 30)
    np.testing.assert_array_equal(decode(content), decode(encoded(synthetic_image(3), form)))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(form: str) -> None:
    frames = [synthetic_image(number) for number in (1, 9, 17)]
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 3
    np.testing.assert_array_equal(decode(content), frames[0])


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
