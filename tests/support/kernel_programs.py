"""The CPU kernels and the C++ programs that test them, without MindSpore."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "ms_kfac" / "kernels" / "cpu"
MESSAGES = ROOT / "ms_kfac" / "kernels" / "interface" / "messages.cc"
PROGRAMS = sorted((ROOT / "tests" / "kernels" / "cpu").glob("test_*.cc"))


def compile_kernels(compiler: str, folder: Path, *flags: str) -> list[str]:
    """The objects of all kernels but MindSpore's operators, in a folder."""
    sources = [MESSAGES, *sorted(path for path in KERNELS.rglob("*.cc") if path.parent.name != "operators")]
    subprocess.run([compiler, *flags, "-c", *map(str, sources)], check=True, cwd=folder)
    return list(map(str, sorted(folder.glob("*.o"))))
