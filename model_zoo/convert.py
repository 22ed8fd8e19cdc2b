"""Converts an image folder to MindRecord: ms-kfac-zoo convert --images DIR --output DIR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model_zoo.common.command_line import run_command


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="ms-kfac-zoo convert",
        description="Converts an image folder to MindRecord files. An interrupted conversion continues "
        "when the same command runs again: complete files are kept.",
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with train/<class>/ and val/<class>/, or test/<class>/",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--shards", type=_at_least_one, default=8, metavar="N", help="files per split (default: 8)"
    )
    parser.add_argument(
        "--broken",
        choices=["refuse", "skip"],
        default="refuse",
        help="what to do with an image that can't be decoded: report it and stop, or skip and count it "
        "(default: refuse)",
    )
    parser.add_argument(
        "--size",
        type=_at_least_one,
        metavar="PIXELS",
        help="resize larger images to this shorter side, as JPEG (default: keep the original bytes)",
    )
    parser.add_argument(
        "--workers",
        type=_at_least_one,
        metavar="N",
        help="threads that read and decode (default: one per processor)",
    )
    return parser.parse_args(arguments)


def convert_images(options: argparse.Namespace) -> int:
    """Converts a folder and prints what was skipped."""
    # Imported late, because importing MindSpore takes seconds and a usage error should appear at once.
    from model_zoo.common.data.record_writer import Conversion, convert

    conversion = Conversion(
        options.images,
        options.output,
        options.shards,
        options.broken == "skip",
        options.size,
        options.workers,
    )
    index = convert(conversion)
    broken = {name: why for file in index["files"].values() for name, why in file["broken"].items()}
    for name, why in broken.items():
        print(f"skipped: {name} {why}")
    rows = sum(file["rows"] for file in index["files"].values())
    print(f"{rows:,} images in {len(index['files'])} files, {len(broken):,} skipped: {options.output}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit status is 2 for an error in the images or the command line."""
    options = parse_arguments(arguments)
    return run_command(lambda _: convert_images(options))


if __name__ == "__main__":
    sys.exit(main())
