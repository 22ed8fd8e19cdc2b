"""Reads the real data sets, if the machine has them.

MS_KFAC_TEST_DATA names a folder with `mnist`, `cifar-10-batches-bin` and `cifar10-images`. Without it, the
tests look for packed copies in ../shared/data, next to the repository.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_zoo.common.data import cifar10, mnist, pipelines
from model_zoo.common.data.record_writer import Conversion, convert
from model_zoo.common.options.data import ImageFolderOptions, MindRecordOptions
from tests.model_zoo.synthetic_data import ROOT
from tests.model_zoo.test_encoded import break_image
from tests.model_zoo.test_pipelines import assert_same, batches, joined, training

UNPACKED = os.environ.get("MS_KFAC_TEST_DATA")
PACKED = ROOT.parent / "shared" / "data"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES_PER_CLASS = {"train": 50, "test": 10}


@pytest.fixture(scope="module")
def mnist_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if UNPACKED and (Path(UNPACKED) / "mnist").is_dir():
        return Path(UNPACKED)
    if not any((PACKED / "mnist").glob("*.gz")):
        pytest.skip("the real MNIST is neither in MS_KFAC_TEST_DATA nor in ../shared/data")
    folder = tmp_path_factory.mktemp("data")
    # Also checks the MD5 sums of the files.
    command = ["bash", "scripts/prepare_data.sh", "mnist", "--archives", PACKED / "mnist", "--output", folder]
    subprocess.run([*map(str, command)], cwd=ROOT, check=True, timeout=120)
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
def test_mnist_size_first_labels_and_normalization_statistics(mnist_dir: Path, side: int) -> None:
    data = mnist.load(mnist_dir, side)
    assert data.train.images.shape == (60_000, side, side)
    assert data.test.images.shape == (10_000, side, side)
    np.testing.assert_array_equal(data.train.labels[:8], [5, 0, 4, 1, 9, 2, 1, 3])
    np.testing.assert_array_equal(data.test.labels[:8], [7, 2, 1, 0, 4, 1, 4, 9])
    assert data.train.images.mean() == pytest.approx(data.mean[0], abs=0.01)
    assert data.train.images.std() == pytest.approx(data.deviation[0], abs=0.01)


def test_cifar10_normalization_statistics(cifar10_dir: Path) -> None:
    data = cifar10.load(cifar10_dir)
    assert set(data.train.labels) == set(data.test.labels) == set(range(10))
    # 500 images are enough for a swapped plane or a wrong constant to show.
    assert data.train.images.mean((0, 1, 2)) == pytest.approx(data.mean, abs=5)
    assert data.train.images.std((0, 1, 2)) == pytest.approx(data.deviation, abs=5)
    red, green, blue = data.train.images.mean((0, 1, 2))
    assert red > green > blue


@pytest.fixture(scope="module")
def jpeg_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred CIFAR-10 images as JPEG files in class folders."""
    folder = tmp_path_factory.mktemp("jpegs")
    packed = PACKED / "cifar10" / "cifar10-jpeg.zip"
    unpacked = Path(UNPACKED) / "cifar10-images" if UNPACKED else None
    if unpacked is not None and unpacked.is_dir():
        for split, name in ((s, n) for s in IMAGES_PER_CLASS for n in CLASSES):
            (folder / split / name).mkdir(parents=True)
            for path in sorted((unpacked / split / name).iterdir())[: IMAGES_PER_CLASS[split]]:
                shutil.copy(path, folder / split / name)
        return folder
    if not packed.is_file():
        pytest.skip("the JPEGs of CIFAR-10 are neither in MS_KFAC_TEST_DATA nor in ../shared/data")
    with zipfile.ZipFile(packed) as archive:
        names = sorted(archive.namelist())
        for split, count in IMAGES_PER_CLASS.items():
            for name in CLASSES:
                members = [member for member in names if member.startswith(f"{split}/{name}/")]
                archive.extractall(folder, members[:count])
    return folder


def test_folder_and_mindrecord_give_the_same_batches(jpeg_dir: Path, tmp_path: Path) -> None:
    sizes = {"image_size": 32, "resize": 32, "mean": cifar10.MEAN, "deviation": cifar10.DEVIATION}
    options = ImageFolderOptions("image_folder", 50, evaluation_batch_size=60, **sizes)
    folder = pipelines.load_data(options, jpeg_dir)
    assert (folder.training_images, folder.test_images) == (500, 100)
    assert folder.class_names == CLASSES

    images, labels = joined(batches(pipelines.evaluation_batches(folder, "train", options)))
    np.testing.assert_array_equal(labels, np.repeat(np.arange(10), 50))
    # 500 images are enough for a swapped channel or a wrong constant to show: 5 of 255 steps.
    assert images.mean((0, 2, 3)) == pytest.approx(0, abs=5 / 60)
    assert images.std((0, 2, 3)) == pytest.approx(1, abs=5 / 60)
    # Without resizing, the pixels are those of the decoded image.
    with Image.open(
        jpeg_dir / "train" / "ship" / sorted(os.listdir(jpeg_dir / "train" / "ship"))[7]
    ) as image:
        pixels = images[8 * 50 + 7].transpose(1, 2, 0) * cifar10.DEVIATION + cifar10.MEAN
        np.testing.assert_array_equal(np.rint(pixels), np.asarray(image.convert("RGB")))

    convert(Conversion(jpeg_dir, tmp_path / "records", shards=3))
    record_options = MindRecordOptions("mindrecord", 50, evaluation_batch_size=60, **sizes)
    records = pipelines.load_data(record_options, tmp_path / "records")
    whole = training(folder, options, epoch=2)
    assert_same(training(records, record_options, epoch=2), whole)
    assert_same(training(records, record_options, epoch=2, skip=9), whole[9:])


def test_truncated_jpeg_is_replaced_and_counted(jpeg_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(jpeg_dir, tmp_path / "copy"))
    whole_options = ImageFolderOptions("image_folder", 500, image_size=32, resize=32, broken="skip")
    whole = joined(training(pipelines.load_data(whole_options, folder), whole_options))
    broken = break_image(sorted((folder / "train" / "frog").iterdir())[3])
    data = pipelines.load_data(whole_options, folder)
    replaced = joined(training(data, whole_options))
    assert list(data.broken.found()) == [str(broken)]
    assert (replaced[0] != whole[0]).any((1, 2, 3)).sum() == 1
    np.testing.assert_array_equal(replaced[1], whole[1])
