"""The readers on the real data sets, where a machine has them.

MS_KFAC_TEST_DATA names a folder that holds `mnist` and `cifar-10-batches-bin`; without it, packed copies are
looked for in ../shared/data beside the repository.
"""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_zoo.common.data import cifar10, mnist
from tests.model_zoo.made_data import ROOT

UNPACKED = os.environ.get("MS_KFAC_TEST_DATA")
PACKED = ROOT.parent / "shared" / "data"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES_PER_CLASS = {"train": 50, "test": 10}


@pytest.fixture(scope="module")
def mnist_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if UNPACKED and (Path(UNPACKED) / "mnist").is_dir():
        return Path(UNPACKED)
    packed = sorted((PACKED / "mnist").glob("*.gz"))
    if not packed:
        pytest.skip("the real MNIST is neither in MS_KFAC_TEST_DATA nor in ../shared/data")
    folder = tmp_path_factory.mktemp("mnist")
    for path in packed:
        (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return folder


def _write_records(archive: zipfile.ZipFile, split: str, path: Path, start: int, count: int) -> None:
    records = []
    for label, name in enumerate(CLASSES):
        members = sorted(member for member in archive.namelist() if member.startswith(f"{split}/{name}/"))
        for member in members[start : start + count]:
            image = Image.open(io.BytesIO(archive.read(member))).convert("RGB")
            records.append(bytes([label]) + np.asarray(image).transpose(2, 0, 1).tobytes())
    path.write_bytes(b"".join(records))


@pytest.fixture(scope="module")
def cifar10_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if UNPACKED and (Path(UNPACKED) / cifar10.SUBFOLDER).is_dir():
        return Path(UNPACKED)
    packed = PACKED / "cifar10" / "cifar10-jpeg.zip"
    if not packed.is_file():
        pytest.skip("the real CIFAR-10 is neither in MS_KFAC_TEST_DATA nor in ../shared/data")
    folder = tmp_path_factory.mktemp("cifar10")
    with zipfile.ZipFile(packed) as archive:
        for number, name in enumerate(cifar10.TRAIN_FILES):
            count = IMAGES_PER_CLASS["train"] // len(cifar10.TRAIN_FILES)
            _write_records(archive, "train", folder / name, number * count, count)
        _write_records(archive, "test", folder / cifar10.TEST_FILE, 0, IMAGES_PER_CLASS["test"])
    return folder


@pytest.mark.parametrize("side", [28, 14])
def test_mnist_has_its_size_its_first_labels_and_the_statistics_that_normalise_it(
    mnist_dir: Path, side: int
) -> None:
    data = mnist.load(mnist_dir, side)
    assert data.train.images.shape == (60_000, side, side)
    assert data.test.images.shape == (10_000, side, side)
    np.testing.assert_array_equal(data.train.labels[:8], [5, 0, 4, 1, 9, 2, 1, 3])
    np.testing.assert_array_equal(data.test.labels[:8], [7, 2, 1, 0, 4, 1, 4, 9])
    assert data.train.images.mean() == pytest.approx(data.mean[0], abs=0.01)
    assert data.train.images.std() == pytest.approx(data.deviation[0], abs=0.01)


def test_cifar10_has_the_statistics_that_normalise_it(cifar10_dir: Path) -> None:
    data = cifar10.load(cifar10_dir)
    assert set(data.train.labels) == set(data.test.labels) == set(range(10))
    # 500 images are enough for a swapped plane or a wrong constant to show.
    assert data.train.images.mean((0, 1, 2)) == pytest.approx(data.mean, abs=5)
    assert data.train.images.std((0, 1, 2)) == pytest.approx(data.deviation, abs=5)
    red, green, blue = data.train.images.mean((0, 1, 2))
    assert red > green > blue
