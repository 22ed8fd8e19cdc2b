"""Pipelines: normalisation, crops, flips, pairing of images with labels, order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_zoo.common.data import pipelines
from model_zoo.common.data.splits import DataSet, Split
from model_zoo.common.options.data import ColourImages, PixelVectors
from tests.model_zoo.made_data import colour_data

PLAIN = ColourImages("cifar10", 8, evaluation_batch_size=4, crop_padding=0, flip=False)


def batches(dataset: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    return [tuple(rows) for rows in dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)]


def restored(images: np.ndarray, data: DataSet) -> np.ndarray:
    """Normalised (N, 3, H, W) back to bytes (N, H, W, 3)."""
    return np.rint(images.transpose(0, 2, 3, 1) * data.deviation + data.mean).astype(int)


def test_training_batches_are_whole_and_evaluation_keeps_every_image() -> None:
    data = colour_data(train=20, test=10)
    assert [len(labels) for _, labels in batches(pipelines.training_batches(data, PLAIN))] == [8, 8]
    assert [len(labels) for _, labels in batches(pipelines.evaluation_batches(data, "test", PLAIN))] == [
        4,
        4,
        2,
    ]
    assert sum(len(y) for _, y in batches(pipelines.evaluation_batches(data, "train", PLAIN))) == 20


def test_evaluation_normalises_each_channel_and_keeps_the_order() -> None:
    data = colour_data()
    loaded = batches(pipelines.evaluation_batches(data, "test", PLAIN))
    images, labels = (np.concatenate(column) for column in zip(*loaded))
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    expected = (data.test.images - np.array(data.mean)) / np.array(data.deviation)
    np.testing.assert_allclose(images, expected.transpose(0, 3, 1, 2), atol=1e-5)
    np.testing.assert_array_equal(labels, data.test.labels)


def test_images_keep_their_labels_when_they_are_shuffled() -> None:
    data = colour_data()
    loaded = batches(pipelines.training_batches(data, PLAIN))
    images, labels = (np.concatenate(column) for column in zip(*loaded))
    numbers = restored(images, data)[:, 0, 0, 0]
    assert sorted(numbers) == list(range(24))
    assert list(numbers) != list(range(24))
    np.testing.assert_array_equal(labels, numbers % 10)


def test_a_crop_is_a_shift_of_at_most_the_padding() -> None:
    data = colour_data()
    options = ColourImages("cifar10", 8, crop_padding=4, flip=False)
    shifts = set()
    for images, _ in batches(pipelines.training_batches(data, options)):
        assert images.shape == (8, 3, 32, 32)
        for image in restored(images, data):
            found = [
                (top, left)
                for padded in np.pad(data.train.images, ((0, 0), (4, 4), (4, 4), (0, 0)))
                for top in range(9)
                for left in range(9)
                if (padded[top + 12, left + 12] == image[12, 12]).all()
                and (padded[top : top + 32, left : left + 32] == image).all()
            ]
            assert len(found) == 1
            shifts.update(found)
    assert len(shifts) > 8


def test_about_half_of_the_images_are_flipped_when_flips_are_on() -> None:
    data = colour_data(train=200)
    options = ColourImages("cifar10", 200, crop_padding=0, flip=True)
    ((images, _),) = batches(pipelines.training_batches(data, options))
    rows = restored(images, data)
    originals = {image.tobytes() for image in data.train.images.astype(int)}
    flipped = [image.tobytes() not in originals for image in rows]
    assert all(image[:, ::-1].tobytes() in originals for image, turned in zip(rows, flipped) if turned)
    assert 60 < sum(flipped) < 140


@pytest.mark.parametrize("same", [True, False])
def test_the_seed_decides_order_and_augmentation(same: bool) -> None:
    data = colour_data()
    options = ColourImages("digits", 8, crop_padding=4, flip=True)
    runs = []
    for seed in (5, 5 if same else 6):
        pipelines.seed_pipelines(seed)
        runs.append(
            np.concatenate([images for images, _ in batches(pipelines.training_batches(data, options))])
        )
    assert np.array_equal(*runs) == same


def test_epochs_differ_in_order() -> None:
    dataset = pipelines.training_batches(colour_data(), PLAIN)
    iterator = dataset.create_tuple_iterator(num_epochs=2, output_numpy=True)
    first, second = (np.concatenate([labels for _, labels in iterator]) for _ in range(2))
    assert list(first) != list(second)
    assert sorted(first) == sorted(second)


@pytest.fixture
def vectors() -> DataSet:
    rng = np.random.default_rng(2)
    split = Split(rng.integers(0, 256, (20, 14, 14), np.uint8), np.arange(20, dtype=np.int32) % 10)
    return DataSet("made", split, split, (30.0,), (70.0,))


def test_the_auto_encoder_learns_its_input(vectors: DataSet) -> None:
    loaded = batches(pipelines.training_batches(vectors, PixelVectors("mnist", 10)))
    for images, targets in loaded:
        np.testing.assert_array_equal(images, targets)
    expected = np.sort(vectors.train.images.reshape(20, -1) / 255, axis=0)
    np.testing.assert_allclose(np.sort(np.concatenate([i for i, _ in loaded]), axis=0), expected, atol=1e-6)


def test_the_small_classifier_gets_normalised_pixels_and_labels(vectors: DataSet) -> None:
    options = PixelVectors("mnist14", 10, evaluation_batch_size=20)
    ((images, labels),) = batches(pipelines.evaluation_batches(vectors, "test", options))
    np.testing.assert_allclose(images, (vectors.test.images.reshape(20, -1) - 30.0) / 70.0, atol=1e-5)
    np.testing.assert_array_equal(labels, vectors.test.labels)
