"""Unpacks MindSpore with its GPU plugin from a folder, and tries it.

The folder has the parts of an archive, ``mindspore*.part*``, and ``setup.sh``. With the parts as arguments,
``setup.sh`` unpacks them under ``$MSROOT`` and runs a test; sourced, it sets the environment.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from benchmarks.gpu.record import LONGEST_MESSAGE, Record, part_parser

SCRIPT = "setup.sh"
PARTS = "mindspore*.part*"
# Seconds that setup.sh allows each mode of its test.
LONGEST_TEST = 60


def why_not(folder: Path) -> str:
    """Why a folder can't be used; empty if it can."""
    if not (folder / SCRIPT).is_file():
        return f"{folder} has no {SCRIPT}"
    return "" if any(folder.glob(PARTS)) else f"{folder} has no {PARTS}"


def main() -> int:
    """Unpacks and tries it.

    Returns:
        The exit status of ``setup.sh``.
    """
    parser = part_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    record = Record(arguments.record)
    start = time.monotonic()
    done = subprocess.run(
        ["bash", str(arguments.folder / SCRIPT), *map(str, sorted(arguments.folder.glob(PARTS)))],
        env={**os.environ, "LIM": str(LONGEST_TEST)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    print(done.stdout, flush=True)
    record.add(
        "set-up",
        exit_status=done.returncode,
        seconds=round(time.monotonic() - start, 1),
        output=done.stdout[-4 * LONGEST_MESSAGE :],
    )
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
