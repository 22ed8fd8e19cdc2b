"""Pipelines: normalization, crops, flips, labels, order, shards and skipped batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import mindspore.dataset as ds
import numpy as np
import pytest

from model_zoo.common.data import pipelines
from model_zoo.common.data.batched import BatchedDataset
from model_zoo.common.data.shards import Shard
from model_zoo.common.data.splits import DataSet, Split
from model_zoo.common.errors import DataError
from model_zoo.common.options.data import ColourImages, PixelVectors
from tests.model_zoo.synthetic_data import colour_data

PLAIN = ColourImages("cifar10", 8, evaluation_batch_size=4, crop_padding=0, flip=False)
AUGMENTED = ColourImages("cifar10", 8, crop_padding=4, flip=True)

Batches = list[tuple[np.ndarray, np.ndarray]]


def batches(dataset: Any) -> Batches:
    return [tuple(rows) for rows in dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)]


def training(data: DataSet, options: Any, **where: Any) -> Batches:
    return batches(pipelines.training_batches(data, options, **{"seed": 5, "epoch": 0, **where}))


def joined(loaded: Batches) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (np.concatenate(column) for column in zip(*loaded))
    return images, labels


def assert_same(left: Batches, right: Batches) -> None:
    assert len(left) == len(right) > 0
    for one, other in zip(left, right):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def restored(images: np.ndarray, data: DataSet) -> np.ndarray:
    """Converts normalized images (N, 3, H, W) back to bytes (N, H, W, 3)."""
    return np.rint(images.transpose(0, 2, 3, 1) * data.deviation + data.mean).astype(int)


def test_training_batches_are_whole_and_evaluation_keeps_every_image() -> None:
    data = colour_data(train=20, test=10)
    pipeline = pipelines.training_batches(data, PLAIN, seed=5, epoch=0)
    assert [len(labels) for _, labels in batches(pipeline)] == [8, 8]
    assert (pipeline.get_dataset_size(), pipeline.get_batch_size()) == (2, 8)
    pipeline = pipelines.evaluation_batches(data, "test", PLAIN)
    assert [len(labels) for _, labels in batches(pipeline)] == [4, 4, 2]
    assert (pipeline.get_dataset_size(), pipeline.get_batch_size()) == (3, 4)
    assert sum(len(y) for _, y in batches(pipelines.evaluation_batches(data, "train", PLAIN))) == 20


def test_evaluation_normalises_each_channel_and_keeps_the_order() -> None:
    data = colour_data()
    images, labels = joined(batches(pipelines.evaluation_batches(data, "test", PLAIN)))
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    expected = (data.test.images - np.array(data.mean)) / np.array(data.deviation)
    # Values up to 4, each after two roundings to float32: 2^-23 * 4 at most.
    np.testing.assert_allclose(images, expected.transpose(0, 3, 1, 2), atol=5e-7, rtol=0)
    np.testing.assert_array_equal(labels, data.test.labels)


def test_images_keep_their_labels_when_they_are_shuffled() -> None:
    data = colour_data()
    images, labels = joined(training(data, PLAIN))
    numbers = restored(images, data)[:, 0, 0, 0]
    assert sorted(numbers) == list(range(24))
    assert list(numbers) != list(range(24))
    np.testing.assert_array_equal(labels, numbers % 10)


def test_a_crop_is_a_shift_of_at_most_the_padding() -> None:
    data = colour_data()
    options = ColourImages("cifar10", 8, crop_padding=4, flip=False)
    shifts = set()
    for images, _ in training(data, options):
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
    assert {side for shift in shifts for side in shift} >= {0, 8}


def test_about_half_of_the_images_are_flipped_when_flips_are_on() -> None:
    data = colour_data(train=200)
    options = ColourImages("cifar10", 200, crop_padding=0, flip=True)
    ((images, labels),) = training(data, options)
    rows = restored(images, data)
    originals = {image.tobytes(): label for image, label in zip(data.train.images.astype(int), range(200))}
    flipped = [image.tobytes() not in originals for image in rows]
    for image, turned, label in zip(rows, flipped, labels):
        assert originals[(image[:, ::-1] if turned else image).tobytes()] % 10 == label
    # 100 expected with a standard deviation of 7.
    assert 60 < sum(flipped) < 140


def test_seed_and_epoch_decide_order_and_augmentation() -> None:
    data = colour_data()
    assert_same(training(data, AUGMENTED, seed=5, epoch=2), training(data, AUGMENTED, seed=5, epoch=2))
    first = joined(training(data, AUGMENTED, seed=5, epoch=2))
    for other in ({"seed": 6, "epoch": 2}, {"seed": 5, "epoch": 3}):
        second = joined(training(data, AUGMENTED, **other))
        assert list(first[1]) != list(second[1])
        assert sorted(first[1]) == sorted(second[1])


def test_augmentation_changes_every_epoch() -> None:
    data = colour_data(train=8)
    epochs = [joined(training(data, AUGMENTED, epoch=epoch)) for epoch in range(6)]
    seen = {label: set() for label in range(8)}
    for images, labels in epochs:
        for image, label in zip(images, labels):
            seen[label].add(image.tobytes())
    # 162 variants per image: two of six agree in a given image with probability 1/11.
    assert sum(map(len, seen.values())) > 6 * 8 - 6


def test_skipped_batches_do_not_change_later_ones() -> None:
    data = colour_data(train=40)
    whole = training(data, AUGMENTED, epoch=7)
    pipeline = pipelines.training_batches(data, AUGMENTED, seed=5, epoch=7, skip=3)
    assert pipeline.get_dataset_size() == 2
    assert_same(batches(pipeline), whole[3:])


@pytest.mark.parametrize("size", [2, 4])
def test_processes_split_the_batches_of_one_process(size: int) -> None:
    data = colour_data(train=42)
    whole = training(data, AUGMENTED, epoch=1)
    pipelines_ = [
        pipelines.training_batches(data, AUGMENTED, seed=5, epoch=1, shard=Shard(rank, size))
        for rank in range(size)
    ]
    assert {pipeline.get_batch_size() for pipeline in pipelines_} == {8 // size}
    parts = [batches(pipeline) for pipeline in pipelines_]
    assert_same([joined(list(ranks)) for ranks in zip(*parts)], whole)


def test_processes_evaluate_each_image_once() -> None:
    data = colour_data(test=10)
    parts = [
        joined(batches(pipelines.evaluation_batches(data, "test", PLAIN, shard=Shard(rank, 3))))
        for rank in range(3)
    ]
    assert [len(labels) for _, labels in parts] == [4, 3, 3]
    numbers = np.concatenate([restored(images, data)[:, 0, 0, 0] for images, _ in parts])
    assert sorted(numbers) == list(range(10))


def test_pipeline_is_repeatable() -> None:
    data = colour_data()
    pipeline = pipelines.training_batches(data, AUGMENTED, seed=5, epoch=3)
    assert pipeline.output_shapes()[0] == [8, 3, 32, 32]
    assert_same(batches(pipeline), batches(pipeline))


def test_a_pipeline_runs_only_a_few_batches_ahead() -> None:
    made = []

    def endless() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            made.append(1)
            yield np.zeros((2, 3), np.float32), np.zeros(2, np.int32)

    usual = ds.config.get_prefetch_size()
    ds.config.set_prefetch_size(16)
    try:
        iterator = BatchedDataset(endless, 1000, 2).create_tuple_iterator(num_epochs=1)
        assert ds.config.get_prefetch_size() == 16
    finally:
        ds.config.set_prefetch_size(usual)
    next(iterator)
    counts = [0]
    while counts[-1] != len(made):
        counts.append(len(made))
        time.sleep(0.3)
    # Four prefetched batches, the consumed one, and those in MindSpore's threads; by default, 18.
    assert 4 <= counts[-1] <= 8


def test_pipelines_leave_no_threads() -> None:
    data = colour_data()
    training(data, AUGMENTED)
    before = threading.active_count(), _threads_of_the_process()
    for epoch in range(100):
        training(data, AUGMENTED, epoch=epoch)
    after = threading.active_count(), _threads_of_the_process()
    # The last iterator may not be closed yet.
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 4


def _threads_of_the_process() -> int:
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))


def test_impossible_batches_and_skips_are_refused() -> None:
    data = colour_data(train=20, test=3)
    with pytest.raises(DataError, match=r"made has 20 training images, fewer than one batch \(.* 21\)"):
        pipelines.training_batches(data, ColourImages("cifar10", 21), seed=1, epoch=0)
    with pytest.raises(DataError, match=r"data\.batch_size 8 can't be divided equally among 3 processes"):
        pipelines.training_batches(data, PLAIN, seed=1, epoch=0, shard=Shard(0, 3))
    with pytest.raises(DataError, match="made has 3 images to evaluate, fewer than 4 processes"):
        pipelines.evaluation_batches(data, "test", PLAIN, shard=Shard(3, 4))
    for skip in (-1, 2):
        with pytest.raises(ValueError, match=f"skip: must be an integer from 0 to 1, got {skip}"):
            pipelines.training_batches(data, PLAIN, seed=1, epoch=0, skip=skip)


@pytest.mark.parametrize(
    ("rank", "size", "named"),
    [(0, 0, "size: must .* got 0"), (2, 2, "rank: must .* got 2"), (-1, 2, "rank: must .* got -1")],
)
def test_invalid_shard_is_refused(rank: int, size: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Shard(rank, size)


@pytest.fixture
def vectors() -> DataSet:
    rng = np.random.default_rng(2)
    split = Split(rng.integers(0, 256, (20, 14, 14), np.uint8), np.arange(20, dtype=np.int32) % 10)
    return DataSet("made", split, split, (30.0,), (70.0,))


def test_autoencoder_targets_are_its_inputs(vectors: DataSet) -> None:
    loaded = training(vectors, PixelVectors("mnist", 10))
    for images, targets in loaded:
        np.testing.assert_array_equal(images, targets)
    expected = np.sort(vectors.train.images.reshape(20, -1) / 255, axis=0)
    # One rounding to float32 of a number up to 1.
    np.testing.assert_allclose(np.sort(joined(loaded)[0], axis=0), expected, atol=1e-7)


def test_small_classifier_gets_normalized_pixels_and_labels(vectors: DataSet) -> None:
    options = PixelVectors("mnist14", 10, evaluation_batch_size=20)
    ((images, labels),) = batches(pipelines.evaluation_batches(vectors, "test", options))
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(images, (vectors.test.images.reshape(20, -1) - 30.0) / 70.0, atol=5e-7)
    np.testing.assert_array_equal(labels, vectors.test.labels)
