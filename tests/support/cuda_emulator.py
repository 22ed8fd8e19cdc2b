"""The CUDA kernels compiled for the CPU, against the emulator in ``tests/kernels/cuda/emulator``."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.support.aot import ROOT

KERNELS = ROOT / "ms_kfac" / "kernels"
EMULATOR = ROOT / "tests" / "kernels" / "cuda" / "emulator"


def emulated_library(folder: Path) -> Path:
    """Compiles all CUDA operators for the CPU, as one library with the functions of the real one."""
    sources = [
        EMULATOR / "emulator.cc",
        *sorted((KERNELS / "interface").glob("*.cc")),
        *sorted((KERNELS / "cuda").rglob("*.cc")),
        *sorted((KERNELS / "cuda").rglob("*.cu")),
    ]
    flags = [
        *("-x", "c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
        *("-fPIC", "-D_GLIBCXX_USE_CXX11_ABI=0", f"-I{EMULATOR}"),
    ]

    def build(source: Path) -> Path:
        built = folder / f"{source.parent.name}_{source.stem}.o"
        subprocess.run(["g++", *flags, "-c", str(source), "-o", str(built)], check=True)
        return built

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(build, sources))
    library = folder / "cuda_emulated.so"
    subprocess.run(["g++", "-shared", *map(str, objects), "-o", str(library)], check=True)
    return library
