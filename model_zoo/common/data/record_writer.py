"""Converts an image folder to MindRecord files; a killed conversion can be continued."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindspore.mindrecord import FileWriter
from PIL import Image
from tqdm import tqdm

from model_zoo.common.data.class_folders import FolderSplit, read_folders
from model_zoo.common.data.decoding import BrokenImageError, decode
from model_zoo.common.data.encoded import BrokenImages, EncodedImage
from model_zoo.common.data.records import (
    CHECKSUM,
    INDEX_FILE,
    SPLITS,
    database,
    file_bytes,
    file_names,
    read_index,
    row_checksum,
    structure_checksum,
)
from model_zoo.common.durable_files import sync, write_text
from model_zoo.common.errors import DataError
from model_zoo.common.run_lock import locked

# Incomplete files have their final names in this folder, because a MindRecord file contains its name.
PARTIAL_FOLDER = "partial"
_SCHEMA = {"image": {"type": "bytes"}, "label": {"type": "int32"}, "checksum": {"type": "int64"}}
# Images per read, check and write.
_IMAGES_A_PORTION = 256
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Conversion:
    """The options of a conversion.

    Attributes:
        images: the image folder.
        output: the folder to write to.
        shards: files per split.
        skip_broken: whether to skip and count images that can't be decoded; otherwise the first one is an
            error.
        size: larger images are resized to this shorter side, as JPEG; None keeps the original bytes.
        workers: threads that read and decode; None for one per processor.
    """

    images: Path
    output: Path
    shards: int = 8
    skip_broken: bool = False
    size: int | None = None
    workers: int | None = None


def convert(conversion: Conversion) -> dict[str, Any]:
    """Writes the missing files, with a progress bar on a terminal.

    Args:
        conversion: what to convert.

    Returns:
        The index.

    Raises:
        DataError: the layout of the image folder is wrong, an image is broken, or the output folder holds
            another conversion.
        UsageError: another process writes to the output folder.
    """
    train, test, classes = read_folders(conversion.images)
    with locked(conversion.output):
        return _convert(conversion, train, test, classes)


def _convert(
    conversion: Conversion, train: FolderSplit, test: FolderSplit, classes: Sequence[str]
) -> dict[str, Any]:
    splits = dict(zip(SPLITS, (train, test)))
    for name, split in splits.items():
        if len(split) < conversion.shards:
            raise DataError(
                f"--shards is {conversion.shards}; accepted: at most the number of {name} images, "
                f"{len(split):,}."
            )
    index = _started_index(conversion, splits, classes)
    partial = conversion.output / PARTIAL_FOLDER
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    workers = conversion.workers or len(os.sched_getaffinity(0))
    total = len(train) + len(test)
    with ThreadPoolExecutor(workers) as threads, tqdm(total=total, unit="image", disable=None) as bar:
        for split_name, split in splits.items():
            for shard, name in enumerate(file_names(split_name, conversion.shards)):
                numbers = _numbers_of_shard(len(split), shard, conversion.shards)
                path = conversion.output / name
                if name in index["files"] and file_bytes(path) == index["files"][name]["bytes"]:
                    bar.update(len(numbers))
                    continue
                broken = BrokenImages(conversion.skip_broken)
                rows = _write_file(partial / name, split, numbers, conversion.size, broken, threads, bar)
                # The database is moved first: the data file then exists only if both are complete.
                for part in (database(partial / name), partial / name):
                    sync(part)
                os.replace(database(partial / name), database(path))
                os.replace(partial / name, path)
                index["files"][name] = {
                    "rows": rows,
                    "bytes": file_bytes(path),
                    "structure": structure_checksum(path),
                    "broken": broken.found(),
                }
                write_text(conversion.output / INDEX_FILE, json.dumps(index, indent=1) + "\n")
    shutil.rmtree(partial)
    return index


def _started_index(
    conversion: Conversion, splits: dict[str, FolderSplit], classes: Sequence[str]
) -> dict[str, Any]:
    listing = hashlib.sha256()
    for name, split in splits.items():
        listing.update("\0".join((name, *split.paths, "")).encode("utf-8", "surrogateescape"))
    plan = {
        "listing": listing.hexdigest(),
        "shards": conversion.shards,
        "skip_broken": conversion.skip_broken,
        "size": conversion.size,
        "classes": list(classes),
        "checksum": CHECKSUM,
    }
    index = read_index(conversion.output)
    if index is None:
        return {"plan": plan, "files": {}}
    different = [key for key, value in plan.items() if index["plan"].get(key) != value]
    if different:
        raise DataError(
            f"{conversion.output} holds another conversion, with a different {', '.join(different)}; choose "
            "another --output, or remove it."
        )
    return index


def _numbers_of_shard(count: int, shard: int, shards: int) -> range:
    return range(count * shard // shards, count * (shard + 1) // shards)


def _write_file(
    path: Path,
    split: FolderSplit,
    numbers: range,
    size: int | None,
    broken: BrokenImages,
    threads: ThreadPoolExecutor,
    bar: Any,
) -> int:
    writer = FileWriter(str(path), shard_num=1, overwrite=True)
    writer.add_schema(_SCHEMA, "an image's bytes, its class, and the checksum of both")
    count = 0
    for portion in _portions(numbers):
        checked = threads.map(lambda image: _checked(image, size, broken), split.images(portion))
        rows = [row for row in checked if row is not None]
        if rows:
            writer.write_raw_data(rows)
        count += len(rows)
        bar.update(len(portion))
    if not count:
        raise DataError(f"none of the {len(numbers):,} images for {path.name} can be decoded.")
    writer.commit()
    return count


def _portions(numbers: range) -> Iterator[range]:
    for start in range(0, len(numbers), _IMAGES_A_PORTION):
        yield numbers[start : start + _IMAGES_A_PORTION]


def _checked(encoded: EncodedImage, size: int | None, broken: BrokenImages) -> dict[str, Any] | None:
    content = encoded.read()
    try:
        image = decode(content)
    except BrokenImageError as error:
        broken.note(encoded.name, error)
        return None
    if size is not None and min(image.size) > size:
        content = _scaled(image, size)
    return {
        "image": content,
        "label": encoded.label,
        "checksum": row_checksum(encoded.label, content),
    }


def _scaled(image: Image.Image, size: int) -> bytes:
    scale = size / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    file = io.BytesIO()
    image.resize((width, height), Image.Resampling.BILINEAR).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
