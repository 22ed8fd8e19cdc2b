"""Small data folders in the public layouts, with random pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from model_zoo.common.data import cifar100
from model_zoo.common.data.cifar10 import TEST_FILE, TRAIN_FILES
from model_zoo.common.data.mnist import FILES
from model_zoo.common.data.splits import DataSet, Split

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "model_zoo").rglob("*.yaml"))


def cifar10_records(labels: list[int], seed: int = 0) -> bytes:
    """One record per label."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), np.uint8)
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels))


def write_cifar10(folder: Path, per_file: int = 6) -> Path:
    """The five training files and the test file."""
    folder.mkdir(parents=True)
    for seed, name in enumerate((*TRAIN_FILES, TEST_FILE)):
        (folder / name).write_bytes(cifar10_records([(seed + i) % 10 for i in range(per_file)], seed))
    return folder


def cifar100_records(labels: list[tuple[int, int]], seed: int = 0) -> bytes:
    """One record per pair of a coarse and a fine label."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), np.uint8)
    return b"".join(bytes(pair) + row.tobytes() for pair, row in zip(labels, pixels))


def write_cifar100(folder: Path, train: int = 30, test: int = 20) -> Path:
    """The training file and the test file."""
    folder.mkdir(parents=True)
    for seed, (name, count) in enumerate(((cifar100.TRAIN_FILE, train), (cifar100.TEST_FILE, test))):
        labels = [(i % 20, (7 * i) % 100) for i in range(count)]
        (folder / name).write_bytes(cifar100_records(labels, seed))
    return folder


def synthetic_image(number: int, width: int = 40, height: int = 30) -> Image.Image:
    """A smooth image whose colours tell its number."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = [40 + 5 * number + 60 * across, 200 - 5 * number + 0 * across, 30 + 100 * down]
    return Image.fromarray(np.rint(np.stack(planes, axis=2)).astype(np.uint8))


def write_image_folder(
    folder: Path, train: int = 4, test: int = 2, classes: tuple[str, ...] = ("ant", "bee", "cat")
) -> Path:
    """Writes `train` and `test` images per class; image n of a split is `synthetic_image(n)`."""
    for split, count in (("train", train), ("val", test)):
        for label, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                number = label * count + i
                image = synthetic_image(number, 40 + number, 36 if i % 2 else 60)
                suffix = "png" if i == 1 else "JPEG"
                image.save(folder / split / name / f"{i:03d}.{suffix}", quality=95)
    return folder


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an idx file."""
    shape = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, train: int = 40, test: int = 20) -> Path:
    """The four idx files; an image's class shows as a bright row, so that a network can learn it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for (images_name, labels_name), count in ((FILES[:2], train), (FILES[2:], test)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 60, (count, 28, 28))
        for image, label in zip(images, labels):
            image[2 * label + 4 : 2 * label + 6] = 250
        (folder / images_name).write_bytes(idx(images))
        (folder / labels_name).write_bytes(idx(labels))
    return folder


def write_sources(folder: Path) -> Path:
    """Two files of 399 bytes for training and one for testing; each byte follows from the one before."""
    folder.mkdir(parents=True)
    # By the checksums of their names, random.py is held out.
    for number, name in enumerate(("abc.py", "ast.py", "random.py")):
        (folder / name).write_bytes(bytes(33 + (number + i) % 90 for i in range(399)))
    return folder


def colour_data(train: int = 24, test: int = 10) -> DataSet:
    """Random 32x32 RGB images; the first pixel's red byte is the image's number."""
    rng = np.random.default_rng(1)

    def split(count: int) -> Split:
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        images[:, 0, 0, 0] = np.arange(count)
        return Split(images, (np.arange(count) % 10).astype(np.int32))

    return DataSet("made", split(train), split(test), (120.0, 110.0, 100.0), (60.0, 50.0, 40.0))
