"""Pipelines of image folders: order, augmentation, shards, workers, broken images."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_zoo.common.data import pipelines
from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import DataError
from model_zoo.common.options.data import ImageFolderOptions
from tests.model_zoo.synthetic_data import write_image_folder
from tests.model_zoo.test_pipelines import assert_same, batches, joined, training

OPTIONS = ImageFolderOptions(
    "image_folder", 4, evaluation_batch_size=4, image_size=24, resize=32, least_area=0.3, workers=2
)
SKIP = dataclasses.replace(OPTIONS, broken="skip")


def load(folder: Path, options: Any = OPTIONS) -> Any:
    return pipelines.load_data(options, folder)


def evaluated(data: Any, **where: Any) -> Any:
    return batches(pipelines.evaluation_batches(data, "test", OPTIONS, **where))


def numbers_of(images: np.ndarray) -> np.ndarray:
    """Identifies images by their green channel."""
    green = images[:, 1].mean((1, 2)) * OPTIONS.deviation[1] + OPTIONS.mean[1]
    return np.rint((200 - green) / 5)


def break_image(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def test_image_folder_describes_its_contents(image_folder: Path) -> None:
    data = load(image_folder)
    assert (data.training_images, data.test_images, data.classes) == (12, 6, 3)
    assert data.describe() == {
        "title": "images of images",
        "training_images": 12,
        "test_images": 6,
        "classes": {"ant": 0, "bee": 1, "cat": 2},
        "broken_images": {},
    }


def test_evaluation_scales_and_normalizes_every_image_in_order(image_folder: Path) -> None:
    data = load(image_folder)
    pipeline = pipelines.evaluation_batches(data, "test", OPTIONS)
    assert (pipeline.get_dataset_size(), pipeline.get_batch_size()) == (2, 4)
    images, labels = joined(batches(pipeline))
    assert images.shape == (6, 3, 24, 24)
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(labels, [0, 0, 1, 1, 2, 2])
    pixels = images * np.reshape(OPTIONS.deviation, (3, 1, 1)) + np.reshape(OPTIONS.mean, (3, 1, 1))
    # Green is 200 - 5 n all over image n; a JPEG is off by a few steps.
    np.testing.assert_allclose(
        pixels[:, 1], 200 - 5.0 * np.arange(6)[:, None, None] + np.zeros((6, 24, 24)), atol=4
    )


def test_training_shuffles_and_keeps_labels_with_their_images(image_folder: Path) -> None:
    images, labels = joined(training(load(image_folder), OPTIONS))
    numbers = numbers_of(images)
    assert sorted(numbers) == list(range(12))
    assert list(numbers) != list(range(12))
    np.testing.assert_array_equal(labels, numbers // 4)


def test_batches_depend_on_seed_and_epoch_only(image_folder: Path) -> None:
    data = load(image_folder)
    whole = training(data, OPTIONS, epoch=3)
    for workers in (1, 5, None):
        assert_same(training(data, dataclasses.replace(OPTIONS, workers=workers), epoch=3), whole)
    assert_same(training(data, OPTIONS, epoch=3, skip=2), whole[2:])
    parts = [training(data, OPTIONS, epoch=3, shard=Shard(rank, 2)) for rank in range(2)]
    assert_same([joined(list(ranks)) for ranks in zip(*parts)], whole)
    for other in ({"epoch": 4}, {"epoch": 3, "seed": 6}):
        assert not np.array_equal(training(data, OPTIONS, **other)[0][0], whole[0][0])


def test_crops_differ_per_image_and_epoch(tmp_path: Path) -> None:
    data = load(write_image_folder(tmp_path / "one", train=4, classes=("ant",)))
    seen = {
        image.tobytes() for epoch in range(5) for image in joined(training(data, OPTIONS, epoch=epoch))[0]
    }
    assert len(seen) == 4 * 5


def test_processes_share_the_evaluation(image_folder: Path) -> None:
    data = load(image_folder)
    whole = joined(evaluated(data))
    parts = [joined(evaluated(data, shard=Shard(rank, 4))) for rank in range(4)]
    assert [len(labels) for _, labels in parts] == [2, 2, 1, 1]
    for rank, part in enumerate(parts):
        np.testing.assert_array_equal(part[0], whole[0][rank::4])


@pytest.mark.parametrize("split", ["train", "val"])
def test_broken_image_is_reported(image_folder: Path, split: str) -> None:
    path = break_image(image_folder / split / "bee" / "000.JPEG")
    data = load(image_folder)
    with pytest.raises(DataError, match=rf"^{path} can't be decoded: .*[Tt]runcated"):
        training(data, OPTIONS) if split == "train" else evaluated(data)


def test_deleted_file_is_reported_even_if_broken_ones_are_skipped(image_folder: Path) -> None:
    data = load(image_folder, SKIP)
    path = image_folder / "train" / "bee" / "000.JPEG"
    path.unlink()
    with pytest.raises(DataError, match=rf"{path} can't be read: No such file or directory"):
        training(data, SKIP)


def test_broken_images_are_skipped_and_counted_if_requested(image_folder: Path) -> None:
    whole = training(load(image_folder), SKIP, epoch=1), evaluated(load(image_folder))
    # Images 3 and 4 of 12, and the last, whose next one is the first.
    broken = [
        break_image(image_folder / "train" / name)
        for name in ("ant/003.JPEG", "bee/000.JPEG", "cat/003.JPEG")
    ]
    broken.append(break_image(image_folder / "val" / "bee" / "001.png"))

    data = load(image_folder, SKIP)
    replaced = training(data, SKIP, epoch=1)
    assert [len(labels) for _, labels in replaced] == [4, 4, 4]
    assert list(data.broken.found()) == [str(path) for path in broken[:3]]
    changed = [not np.array_equal(one, other) for one, other in zip(joined(replaced)[0], joined(whole[0])[0])]
    assert sum(changed) == 3
    np.testing.assert_array_equal(
        np.sort(numbers_of(joined(replaced)[0])), [0, 0, 1, 2, 5, 5, 5, 6, 7, 8, 9, 10]
    )
    np.testing.assert_array_equal(np.sort(joined(replaced)[1]), [0] * 4 + [1] * 5 + [2] * 3)
    for where in ({"skip": 1}, {"skip": 2}):
        assert_same(training(data, SKIP, epoch=1, **where), replaced[where["skip"] :])

    rest = joined(evaluated(data))
    np.testing.assert_array_equal(rest[1], [0, 0, 1, 2, 2])
    np.testing.assert_array_equal(rest[0], np.delete(joined(whole[1])[0], 3, axis=0))
    assert list(data.describe()["broken_images"]) == [str(path) for path in broken]


def test_split_of_broken_images_only_is_refused(image_folder: Path) -> None:
    for path in (image_folder / "train").rglob("*.*"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="can't be replaced: no image of the split can be decoded"):
        training(load(image_folder, SKIP), SKIP)


def test_evaluation_continues_after_a_batch_of_broken_images(image_folder: Path) -> None:
    paths = sorted((image_folder / "val").rglob("*.*"))
    for path in paths[:4]:
        break_image(path)
    data = load(image_folder, SKIP)
    np.testing.assert_array_equal(joined(evaluated(data))[1], [2, 2])
    for path in paths[4:]:
        break_image(path)
    with pytest.raises(DataError, match=r"^none of the images to evaluate can be decoded\.$"):
        evaluated(data)


def test_abandoned_pipelines_leave_no_threads(image_folder: Path) -> None:
    data = load(image_folder)
    for epoch in range(20):
        pipeline = pipelines.training_batches(data, OPTIONS, seed=1, epoch=epoch)
        iterator = pipeline.create_tuple_iterator(num_epochs=1, output_numpy=True)
        next(iterator)
    del iterator
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]
