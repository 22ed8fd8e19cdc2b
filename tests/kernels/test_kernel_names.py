"""Names of the CUDA kernels. A profile shows only the function name of a kernel."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

CUDA = Path(__file__).resolve().parents[2] / "ms_kfac" / "kernels" / "cuda"
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")


def test_kernel_names_are_unique_over_all_files() -> None:
    files = defaultdict(list)
    kernels = 0
    for path in sorted(CUDA.rglob("*")):
        if path.is_file():
            text = path.read_text()
            kernels += text.count("__global__")
            for name in KERNEL.findall(text):
                files[name].append(path.relative_to(CUDA).as_posix())
    assert kernels == sum(map(len, files.values())) > 0
    assert {name: found for name, found in files.items() if len(found) > 1} == {}
