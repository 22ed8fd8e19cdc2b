"""The sources of Python's standard library as a text, which every machine with Python has.

The modules at the top of the library, without packages: a distribution may lack some of those. The text
depends on Python's version; run.json holds its checksum.
"""

from __future__ import annotations

import sysconfig
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_zoo.common.data.folders import read_bytes
from model_zoo.common.data.text import TextDataSet
from model_zoo.common.errors import DataError
from model_zoo.common.options.data import TextWindows

TITLE = "Python's standard library"
# Written by the build or by the machine's owner.
_LOCAL = ("_sysconfigdata", "sitecustomize", "usercustomize")
# One file in so many is held out.
_HELD_OUT = 10
# Between two files; no source contains it.
_END_OF_FILE = b"\0"


def is_held_out(name: str) -> bool:
    """Whether a file belongs to the test split: by its name alone, so that other files don't matter."""
    return zlib.crc32(name.encode()) % _HELD_OUT == 0


def _text(paths: list[Path]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(read_bytes(TITLE, path) + _END_OF_FILE for path in paths), np.uint8)


def load(options: TextWindows, data_dir: Path | None) -> TextDataSet:
    """Reads the sources.

    Args:
        options: the recipe's data section.
        data_dir: the folder of the sources; None for the library of the running Python.

    Returns:
        The text, split by file.

    Raises:
        DataError: the folder has no sources for one of the splits.
    """
    folder = Path(sysconfig.get_path("stdlib")) if data_dir is None else data_dir
    paths = [path for path in sorted(folder.glob("*.py")) if not path.name.startswith(_LOCAL)]
    test = [path for path in paths if is_held_out(path.name)]
    train = [path for path in paths if not is_held_out(path.name)]
    if not train or not test:
        raise DataError(
            f"{TITLE} was not found: {folder} has {len(train):,} *.py files to train on and {len(test):,} to "
            "test; --data-dir names another folder of Python sources."
        )
    train_files, test_files = (tuple(path.name for path in split) for split in (train, test))
    return TextDataSet(TITLE, options, _text(train), _text(test), train_files, test_files)
