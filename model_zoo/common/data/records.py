"""Images in MindRecord files, as `python -m model_zoo.convert` writes them, and the index beside them.

The index, a JSON file, holds what was asked for (`plan`) and what each finished file holds (`files`): rows,
bytes, and the images that were left out because they are broken.
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
# The images' bytes, and their classes.
COLUMNS = ["image", "label"]


def file_names(split: str, shards: int) -> list[str]:
    """The names of a split's files, in the order of their images."""
    return [f"{split}-{shard:05d}-of-{shards:05d}.mindrecord" for shard in range(shards)]


def database(path: Path) -> Path:
    """The file that MindSpore keeps beside a MindRecord file, with the places of its rows."""
    return path.with_name(path.name + ".db")


def file_bytes(path: Path) -> int:
    """The bytes of a MindRecord file and its database, 0 when one of them is missing."""
    both = (path, database(path))
    return sum(part.stat().st_size for part in both) if all(part.is_file() for part in both) else 0


def read_index(folder: Path) -> dict[str, Any] | None:
    """The index of a folder.

    Args:
        folder: where the files are.

    Returns:
        What it holds; None when there is no index.

    Raises:
        DataError: it can't be read.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        return None
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        # What is looked up below must be there.
        index["plan"]["shards"], index["plan"]["classes"], index["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{TITLE}: {path} is no index that model_zoo.convert has written.") from error
    return dict(index)


class RecordSplit:
    """The images of one split.

    Args:
        files: in the order of their images.
        rows: how many images they hold together.
    """

    def __init__(self, files: Sequence[Path], rows: int) -> None:
        self._files = [str(path) for path in files]
        self._rows = rows

    def __len__(self) -> int:
        """How many images there are."""
        return self._rows

    def images(self, numbers: Sequence[int]) -> Iterator[EncodedImage]:
        """The images of these numbers, in this order."""
        # A subset sampler reads what it is given, in that order; MindSpore's threads read ahead.
        folder = Path(self._files[0]).parent
        try:
            rows = ds.MindDataset(self._files, COLUMNS, sampler=ds.SubsetSampler(list(numbers)))
            iterator = rows.create_tuple_iterator(num_epochs=1, output_numpy=True)
            for number, (content, label) in zip(numbers, iterator):
                # Copied, because the next row may overwrite the buffer.
                read = partial(bytes, content.tobytes())
                yield EncodedImage(f"{TITLE}: image {number} of {folder}", int(label), read)
        except RuntimeError as error:
            raise DataError(
                f"{TITLE}: a file of {folder} is damaged: {' '.join(str(error).split())}"
            ) from error


def load(data_dir: Path | None) -> EncodedDataSet:
    """Finds the files of a conversion and checks that they are whole.

    Args:
        data_dir: the folder that holds them.

    Returns:
        The data set.

    Raises:
        DataError: there is no conversion, or it was not finished, or a file is missing or cut off.
    """
    if data_dir is None:
        raise DataError(f"{TITLE} needs --data-dir, a folder that model_zoo.convert has written.")
    if not data_dir.is_dir():
        raise DataError(f"{TITLE} was looked for in {data_dir}, which is no folder.")
    index = read_index(data_dir)
    if index is None:
        raise DataError(
            f"{TITLE} was looked for in {data_dir}, which holds no {INDEX_FILE}; model_zoo.convert writes it."
        )
    plan, files = index["plan"], index["files"]
    train, test = (_split(data_dir, file_names(name, plan["shards"]), files) for name in SPLITS)
    return EncodedDataSet(f"MindRecord of {data_dir.resolve().name}", train, test, tuple(plan["classes"]))


def _split(folder: Path, names: Sequence[str], files: Mapping[str, Any]) -> RecordSplit:
    missing = [name for name in names if name not in files]
    if missing:
        raise DataError(
            f"{TITLE}: the conversion in {folder} was not finished, {len(missing)} of {len(names)} files of "
            "a split are missing; the command that started it goes on with it."
        )
    for name in names:
        there = file_bytes(folder / name)
        if there != files[name]["bytes"]:
            raise DataError(
                f"{TITLE}: {folder / name} and {database(folder / name).name} hold {there:,} bytes, where "
                f"{files[name]['bytes']:,} were written; is one of them missing or cut off?"
            )
    return RecordSplit([folder / name for name in names], sum(files[name]["rows"] for name in names))
