"""Runs a case on the stand-in device in a new process, because MindSpore cannot change its device later."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(folder: Path, case: str, way: str, library: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a case.

    Args:
        folder: the folder of the stand-in libraries.
        case: one of `CASES` of `train.py`.
        way: "sink" or "pynative".
        library: the emulated CUDA operators; None for fallbacks.

    Returns:
        The finished process.
    """
    native = "0" if library is None else "1"
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.gpu_backend",
            str(folder),
            case,
            way,
            *([str(library)] if library else []),
        ],
        env={
            **os.environ,
            "MS_KFAC_NATIVE": native,
            "MS_KFAC_REQUIRE_NATIVE": "0",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        # MindSpore creates folders in its working directory.
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def train_in_process(folder: Path, case: str, way: str, library: Path | None = None) -> dict[str, Any]:
    """Runs a case, and returns what it prints. Fails if the process does."""
    process = run(folder, case, way, library)
    assert process.returncode == 0, process.stderr[-4000:]
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result
