"""Readers of data folders: their results, and the errors for wrong folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_zoo.common.data import cifar10, cifar100, digits, mnist
from model_zoo.common.errors import DataError
from tests.model_zoo.synthetic_data import cifar10_records, cifar100_records, idx, write_cifar100


def test_cifar10_records_become_images_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "batch.bin"
    content = cifar10_records([3, 9, 0])
    path.write_bytes(content)
    split = cifar10.read_batch(path)
    assert split.images.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(split.labels, [3, 9, 0])
    # Record 1, green plane, row 2, column 5.
    assert split.images[1, 2, 5, 1] == content[3073 + 1 + 1024 + 2 * 32 + 5]


@pytest.mark.parametrize("subfolder", ["", "cifar-10-batches-bin"])
def test_cifar10_is_found_in_the_folder_or_below_it(cifar10_folder: Path, subfolder: str) -> None:
    folder = cifar10_folder
    if subfolder:
        folder = cifar10_folder.parent / "data"
        folder.mkdir()
        cifar10_folder.rename(folder / subfolder)
    data = cifar10.load(folder)
    assert (len(data.train.images), len(data.test.images)) == (30, 6)
    np.testing.assert_array_equal(data.train.labels[6:12], [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"has 0 bytes.*is it truncated\?"),
        (cifar10_records([1, 2])[:-1], r"has 6,145 bytes, .* 3,073-byte records; is it truncated\?"),
        (cifar10_records([1, 10, 2]), r"has label 10 in record 1; expected 0 to 9"),
    ],
)
def test_invalid_cifar10_file_is_reported(cifar10_folder: Path, content: bytes, message: str) -> None:
    (cifar10_folder / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_3.bin {message}"):
        cifar10.load(cifar10_folder)


def test_missing_folders_and_files_are_reported(cifar10_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"CIFAR-10 needs --data-dir, a folder that contains data_batch_1.bin, .*test_batch.bin",
    ):
        cifar10.load(None)
    with pytest.raises(DataError, match=r"was not found: .*nowhere is not a folder"):
        cifar10.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"not found: neither .*empty nor .*empty/mnist contains train-images-idx3-ubyte"
    ):
        mnist.load(tmp_path / "empty", 28)
    (cifar10_folder / "data_batch_2.bin").unlink()
    (cifar10_folder / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"not found: .*cifar lacks data_batch_2.bin, test_batch.bin\.$"):
        cifar10.load(cifar10_folder)


def test_cifar100_keeps_the_fine_labels(tmp_path: Path) -> None:
    folder = write_cifar100(tmp_path / "data" / "cifar-100-binary")
    for data_dir in (folder, folder.parent):
        data = cifar100.load(data_dir)
        assert (data.title, data.classes) == ("CIFAR-100", 100)
        assert (data.training_images, data.test_images) == (30, 20)
        np.testing.assert_array_equal(data.train.labels, [(7 * i) % 100 for i in range(30)])
    # Record 1, blue plane, row 3, column 4.
    content = (folder / "test.bin").read_bytes()
    assert data.test.images[1, 3, 4, 2] == content[3074 + 2 + 2048 + 3 * 32 + 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cifar100_records([(1, 2)] * 2)[:-1], r"has 6,147 bytes, .* 3,074-byte records; is it truncated\?"),
        (cifar10_records([1]), r"has 3,073 bytes, which is not a multiple of 3,074-byte records"),
        (cifar100_records([(19, 99), (20, 5)]), "has coarse label 20 in record 1; expected 0 to 19"),
        (
            cifar100_records([(1, 2), (3, 4), (5, 100)]),
            "has fine label 100 in record 2; expected 0 to 99",
        ),
    ],
)
def test_invalid_cifar100_file_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    folder = write_cifar100(tmp_path / "cifar")
    (folder / "test.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"^CIFAR-100: .*test.bin {message}"):
        cifar100.load(folder)


def test_mnist_idx_files_become_images_and_labels(mnist_folder: Path) -> None:
    data = mnist.load(mnist_folder, 28)
    assert data.train.images.shape == (40, 28, 28)
    np.testing.assert_array_equal(data.test.labels, np.arange(20) % 10)
    np.testing.assert_array_equal(data.train.images[3, 10:12], 250)
    assert data.train.images[3, 12:].max() < 250


def test_mnist14_averages_blocks_of_pixels(mnist_folder: Path) -> None:
    full, halved = mnist.load(mnist_folder, 28), mnist.load(mnist_folder, 14)
    block = full.train.images[5, 6:8, 8:10].astype(float).mean()
    assert halved.train.images.shape == (40, 14, 14)
    assert halved.train.images[5, 3, 4] == np.rint(block)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "train-images-idx3-ubyte",
            b"",
            r"starts with the bytes \(none\); expected the idx header 00 00 08 03",
        ),
        (
            "train-images-idx3-ubyte",
            idx(np.zeros(40)),
            r"starts with the bytes 00 00 08 01; expected the idx header 00 00 08 03",
        ),
        ("t10k-labels-idx1-ubyte", idx(np.zeros((20, 1))), "expected the idx header 00 00 08 01"),
        (
            "train-images-idx3-ubyte",
            idx(np.zeros((40, 28, 28)))[:-7],
            r"has 31,369 bytes, .*40 x 28 x 28.*31,376; is it truncated",
        ),
        ("train-images-idx3-ubyte", idx(np.zeros((40, 14, 14))), "expected N images of 28 x 28"),
        (
            "train-labels-idx1-ubyte",
            idx(np.zeros(39)),
            "holds 40 images, but .*train-labels-idx1-ubyte 39 labels",
        ),
        (
            "train-labels-idx1-ubyte",
            idx(np.full(40, 11)),
            "has label 11 at 0; expected 0 to 9",
        ),
    ],
)
def test_invalid_mnist_file_is_reported(mnist_folder: Path, name: str, content: bytes, message: str) -> None:
    (mnist_folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        mnist.load(mnist_folder, 28)
    assert name in str(caught.value)


def test_digits_are_split_by_class_and_enlarged() -> None:
    data = digits.load()
    assert data.train.images.shape == (1437, 32, 32, 3)
    assert data.test.images.shape == (360, 32, 32, 3)
    assert set(np.bincount(data.test.labels)) <= {35, 36, 37}
    assert (data.train.images[..., 0] == data.train.images[..., 2]).all()
    np.testing.assert_array_equal(digits.load().test.labels, data.test.labels)


def test_digit_splits_are_disjoint() -> None:
    data = digits.load()
    train = {image.tobytes() for image in data.train.images}
    assert len(train) == 1437
    assert not train & {image.tobytes() for image in data.test.images}


def test_digit_statistics_come_from_the_training_split() -> None:
    data = digits.load()
    assert data.mean == pytest.approx([data.train.images.mean()] * 3, abs=0.1)
    assert data.deviation == pytest.approx([data.train.images.std()] * 3, abs=0.1)
