"""Images in MindRecord files, as written by `ms-kfac-zoo convert`, and their index.

The index, a JSON file, holds the options of the conversion (`plan`) and the content of each finished file
(`files`): rows, bytes, and the broken images that were skipped.
"""

from __future__ import annotations

import hashlib
import json
import zlib
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
# The encoded bytes and the class of each image, and the checksum of both.
COLUMNS = ["image", "label", "checksum"]
CHECKSUM = "crc32"
# A file begins with the length of its header, which MindRecord limits to this size.
_LENGTH_BYTES = 8
_LARGEST_HEADER = 1 << 24


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


def structure_checksum(path: Path) -> str:
    """The checksum of all but the images: the database, the header, and the pages of classes and checksums.

    MindSpore aborts the process when these are damaged. They take a few dozen bytes per image.

    Args:
        path: the MindRecord file.

    Returns:
        The SHA-256; "" if the header can't be read.
    """
    digest = hashlib.sha256(database(path).read_bytes())
    with path.open("rb") as file:
        length = file.read(_LENGTH_BYTES)
        header = file.read(min(int.from_bytes(length, "little"), _LARGEST_HEADER))
        digest.update(length + header)
        try:
            content = json.loads(header)
            for page in content["page"]:
                if page["page_type"] == "RAW_DATA":
                    file.seek(content["header_size"] + page["page_id"] * content["page_size"])
                    digest.update(file.read(page["page_size"]))
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            return ""
    return digest.hexdigest()


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
        raise DataError(f"{TITLE}: {path} is not an index written by `ms-kfac-zoo convert`.") from error
    return dict(index)


def row_checksum(label: int, content: bytes) -> int:
    """The checksum of an image's class, which is at least 0, and of its bytes."""
    return zlib.crc32(content, label)


def _verified(name: str, label: int, content: bytes, checksum: int) -> bytes:
    """Returns the bytes of an image; raises DataError if they or the class are not what was written."""
    if row_checksum(label, content) != checksum:
        raise DataError(f"{name} is damaged: its checksum differs from the one that was written.")
    return content


class RecordSplit:
    """The images of one split.

    Args:
        files: the MindRecord files, in order.
        rows: the total number of images.
        classes: the number of classes.
    """

    def __init__(self, files: Sequence[Path], rows: int, classes: int) -> None:
        self._files = [str(path) for path in files]
        self._rows = rows
        self._classes = classes

    def __len__(self) -> int:
        """The number of images."""
        return self._rows

    def images(self, numbers: Sequence[int]) -> Iterator[EncodedImage]:
        """The images with the given indices, in that order."""
        # A subset sampler reads the given rows in order; MindSpore's threads prefetch them.
        folder = Path(self._files[0]).parent
        found = 0
        try:
            rows = ds.MindDataset(self._files, COLUMNS, sampler=ds.SubsetSampler(list(numbers)))
            iterator = rows.create_tuple_iterator(num_epochs=1, output_numpy=True)
            for number, (content, label, checksum) in zip(numbers, iterator):
                name = f"{TITLE}: image {number} of {folder}"
                if not 0 <= label < self._classes:
                    raise DataError(f"{name} has class {label}; expected 0 to {self._classes - 1}.")
                found += 1
                # Copied, because the next row may reuse the buffer. Checked by the thread that decodes.
                read = partial(_verified, name, int(label), content.tobytes(), int(checksum))
                yield EncodedImage(name, int(label), read)
        except RuntimeError as error:
            raise DataError(
                f"{TITLE}: a file of {folder} is damaged: {' '.join(str(error).split())}"
            ) from error
        if found < len(numbers):
            raise DataError(
                f"{TITLE}: a file of {folder} is damaged: it lacks {len(numbers) - found:,} images."
            )


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
        raise DataError(f"{TITLE} needs --data-dir, a folder written by `ms-kfac-zoo convert`.")
    if not data_dir.is_dir():
        raise DataError(f"{TITLE} was not found: {data_dir} is not a folder.")
    index = read_index(data_dir)
    if index is None:
        raise DataError(
            f"{TITLE} was not found: {data_dir} has no {INDEX_FILE}, which `ms-kfac-zoo convert` writes."
        )
    plan, files = index["plan"], index["files"]
    if plan.get("checksum") != CHECKSUM:
        raise DataError(
            f"{TITLE}: the files of {data_dir} have no checksums, because an earlier version wrote them; "
            "convert the images again."
        )
    classes = len(plan["classes"])
    train, test = (_split(data_dir, file_names(name, plan["shards"]), files, classes) for name in SPLITS)
    return EncodedDataSet(f"MindRecord of {data_dir.resolve().name}", train, test, tuple(plan["classes"]))


def _split(folder: Path, names: Sequence[str], files: Mapping[str, Any], classes: int) -> RecordSplit:
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
        if structure_checksum(folder / name) != files[name]["structure"]:
            raise DataError(
                f"{TITLE}: {folder / name} or {database(folder / name).name} is damaged: the checksum of the "
                "classes and of the places of the images differs from the one that was written."
            )
    rows = sum(files[name]["rows"] for name in names)
    return RecordSplit([folder / name for name in names], rows, classes)
