"""Converts an image folder to MindRecord: python -m model_zoo.convert --images DIR --output DIR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model_zoo.common.command_line import tell
from model_zoo.common.errors import UsageError


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m model_zoo.convert",
        description="Converts an image folder to MindRecord files. A conversion that was stopped goes on "
        "where it stood: files that are whole are kept.",
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that holds train/<class>/ and val/<class>/, or test/<class>/",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--shards", type=_at_least_one, default=8, metavar="N", help="files a split (default: 8)"
    )
    parser.add_argument(
        "--broken",
        choices=["refuse", "skip"],
        default="refuse",
        help="what to do at an image that can't be decoded: name it and stop, or leave it out and count it "
        "(default: refuse)",
    )
    parser.add_argument(
        "--size",
        type=_at_least_one,
        metavar="PIXELS",
        help="scale larger images down until their shorter side is this, as JPEG (default: keep the bytes)",
    )
    parser.add_argument(
        "--workers",
        type=_at_least_one,
        metavar="N",
        help="threads that read and decode (default: one a processor)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 2 when the images or the command line are at fault."""
    options = parse_arguments(arguments)

    # Only now: MindSpore takes seconds to import, and a mistake in the command line should be told at once.
    from model_zoo.common.data.record_writer import Conversion, convert

    conversion = Conversion(
        options.images,
        options.output,
        options.shards,
        options.broken == "skip",
        options.size,
        options.workers,
    )
    try:
        index = convert(conversion)
    except UsageError as error:
        return tell(error)
    broken = {name: why for file in index["files"].values() for name, why in file["broken"].items()}
    for name, why in broken.items():
        print(f"left out: {name} {why}")
    rows = sum(file["rows"] for file in index["files"].values())
    print(f"{rows:,} images in {len(index['files'])} files, {len(broken):,} left out: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
