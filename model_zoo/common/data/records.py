"""Images in MindRecord files, as written by `python -m model_zoo.convert`, and their index.

The index, a JSON file, holds the options of the conversion (`plan`) and the content of each finished file
(`files`): rows, bytes, and the broken images that were skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mindspore.dataset as ds

from model_zoo.common.data.encoded import EncodedDataSet, EncodedImage
from model_zoo.common.errors import DataError

TITLE = "MindRecord"
INDEX_FILE = "index.json"
SPLITS = ("train", "test")
# The encoded bytes and the class of each image.
COLUMNS = ["image", "label"]


def file_names(split: str, shards: int) -> list[str]:
    """The names of a split's files, in order."""
    return [f"{split}-{shard:05d}-of-{shards:05d}.mindrecord" for shard in range(shards)]


def database(path: Path) -> Path:
    """The database that MindSpore keeps next to a MindRecord file, with the offsets of its rows."""
    return path.with_name(path.name + ".db")


def file_bytes(path: Path) -> int:
    """The total size of a MindRecord file and its database; 0 if one of them is missing."""
    both = (path, database(path))
    return sum(part.stat().st_size for part in both) if all(part.is_file() for part in both) else 0


def read_index(folder: Path) -> dict[str, Any] | None:
    """Reads the index of a folder.

    Args:
        folder: the folder of the MindRecord files.

    Returns:
        The index; None if there is none.

    Raises:
        DataError: the index can't be read.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        return None
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        # Checks that the keys used below exist.
        index["plan"]["shards"], index["plan"]["classes"], index["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{TITLE}: {path} is not an index written by model_zoo.convert.") from error
    return dict(index)


class RecordSplit:
    """The images of one split.

    Args:
        files: the MindRecord files, in order.
        rows: the total number of images.
    """

    def __init__(self, files: Sequence[Path], rows: int) -> None:
        self._files = [str(path) for path in files]
        self._rows = rows

    def __len__(self) -> int:
        """The number of images."""
        return self._rows

    def images(self, numbers: Sequence[int]) -> Iterator[EncodedImage]:
        """The images with the given indices, in that order."""
        # A subset sampler reads the given rows in order; MindSpore's threads prefetch them.
        folder = Path(self._files[0]).parent
        try:
            rows = ds.MindDataset(self._files, COLUMNS, sampler=ds.SubsetSampler(list(numbers)))
            iterator = rows.create_tuple_iterator(num_epochs=1, output_numpy=True)
            for number, (content, label) in zip(numbers, iterator):
                # Copied, because the next row may reuse the buffer.
                read = partial(bytes, content.tobytes())
                yield EncodedImage(f"{TITLE}: image {number} of {folder}", int(label), read)
        except RuntimeError as error:
            raise DataError(
                f"{TITLE}: a file of {folder} is damaged: {' '.join(str(error).split())}"
            ) from error


def load(data_dir: Path | None) -> EncodedDataSet:
    """Finds the files of a conversion and checks that they are complete.

    Args:
        data_dir: the folder of the MindRecord files.

    Returns:
        The data set.

    Raises:
        DataError: there is no conversion, it is incomplete, or a file is missing or truncated.
    """
    if data_dir is None:
        raise DataError(f"{TITLE} needs --data-dir, a folder written by model_zoo.convert.")
    if not data_dir.is_dir():
        raise DataError(f"{TITLE} was not found: {data_dir} is not a folder.")
    index = read_index(data_dir)
    if index is None:
        raise DataError(
            f"{TITLE} was not found: {data_dir} has no {INDEX_FILE}, which model_zoo.convert writes."
        )
    plan, files = index["plan"], index["files"]
    train, test = (_split(data_dir, file_names(name, plan["shards"]), files) for name in SPLITS)
    return EncodedDataSet(f"MindRecord of {data_dir.resolve().name}", train, test, tuple(plan["classes"]))


def _split(folder: Path, names: Sequence[str], files: Mapping[str, Any]) -> RecordSplit:
    missing = [name for name in names if name not in files]
    if missing:
        raise DataError(
            f"{TITLE}: the conversion in {folder} is incomplete: {len(missing)} of {len(names)} files of a "
            "split are missing. Run the same command again to continue it."
        )
    for name in names:
        there = file_bytes(folder / name)
        if there != files[name]["bytes"]:
            raise DataError(
                f"{TITLE}: {folder / name} and {database(folder / name).name} have {there:,} bytes, but "
                f"{files[name]['bytes']:,} were written; is one of them missing or truncated?"
            )
    return RecordSplit([folder / name for name in names], sum(files[name]["rows"] for name in names))
