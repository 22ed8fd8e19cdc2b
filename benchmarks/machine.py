"""The commit, date and machine of a measurement."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import mindspore as ms

import ms_kfac
from ms_kfac.kernels.library import library


def describe_run() -> dict[str, Any]:
    """Commit, date and machine, for the head of a results file.

    Returns:
        The commit, with "+" if files differ from it, the date, and :func:`describe_machine`.
    """
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit + ("+" if changed else ""),
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
    }


def _git(*arguments: str) -> str:
    folder = Path(__file__).resolve().parent
    finished = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return finished.stdout.strip()


def describe_machine() -> dict[str, Any]:
    """Processor, cores, versions and the settings that affect speed."""
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "mindspore": ms.__version__,
        "ms_kfac": ms_kfac.__version__,
        "native_threads": library("CPU").threads(),
        "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA"),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
