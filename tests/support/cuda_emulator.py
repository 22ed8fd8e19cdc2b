"""The CUDA kernels compiled for the CPU, against the emulator in ``tests/kernels/cuda/emulator``."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.support.aot import ROOT

KERNELS = ROOT / "ms_kfac" / "kernels"
EMULATOR = ROOT / "tests" / "kernels" / "cuda" / "emulator"

FLAGS = (
    *("-x", "c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    *("-fPIC", "-pthread", "-D_GLIBCXX_USE_CXX11_ABI=0", f"-I{EMULATOR}"),
    # An integer division by zero ends the process. Without this, the optimizer may leave it out.
    *("-fsanitize=integer-divide-by-zero", "-fsanitize-undefined-trap-on-error"),
    # Each library has its own static objects, even if a process loads several.
    "-fno-gnu-unique",
)
# The functions that the instrumented code calls are those of the emulator's races.cc.
INSTRUMENTED = ("-fsanitize=thread", "--param=tsan-distinguish-volatile=1", "-Wno-tsan")


class Change(NamedTuple):
    """A bug that a test puts into a copy of the kernels: replaces a text that occurs once in a file."""

    file: str
    text: str
    replacement: str

    def apply(self, kernels: Path) -> None:
        """Changes the file; fails if the text is not there once."""
        file = kernels / self.file
        source = file.read_text(encoding="utf-8")
        assert source.count(self.text) == 1, f"{self.file} must have this text once: {self.text}"
        file.write_text(source.replace(self.text, self.replacement), encoding="utf-8")


def emulated_library(folder: Path, operators: Sequence[str] = ("*",), races: bool = False) -> Path:
    """Compiles CUDA operators for the CPU, as one library with the functions of the real one.

    Args:
        folder: the folder for the library and its object files.
        operators: patterns of the file names of the operators.
        races: whether the emulator reports races, also those that change no value.
    """
    emulator = [source for source in sorted(EMULATOR.glob("*.cc")) if races or source.stem != "races"]
    of_operators = KERNELS / "cuda" / "operators"
    sources = [
        *sorted((KERNELS / "interface").glob("*.cc")),
        *sorted((KERNELS / "cuda").rglob("*.cc")),
        *(one for one in sorted((KERNELS / "cuda").rglob("*.cu")) if one.parent != of_operators),
        *(one for pattern in operators for one in sorted(of_operators.glob(f"{pattern}.cu"))),
    ]
    return _link(
        [*_compile(emulator, folder, races), *_compile(sources, folder, races, INSTRUMENTED)], folder
    )


def changed_library(
    library: Path, folder: Path, changes: Sequence[Change], sources: Sequence[str], races: bool = False
) -> Path:
    """Compiles some sources with a bug, and links them with the other object files of a library.

    Args:
        library: the result of :func:`emulated_library`, with the same ``races``.
        folder: the folder for the new library and the copy of the sources.
        changes: the bug.
        sources: the files that are compiled again.
        races: whether the emulator reports races.
    """
    kernels = folder / "kernels"
    for part in ("cuda", "interface"):
        shutil.copytree(KERNELS / part, kernels / part)
    for change in changes:
        change.apply(kernels)
    changed = _compile([kernels / source for source in sources], folder, races, INSTRUMENTED)
    names = {built.name for built in changed}
    others = [built for built in sorted(library.parent.glob("*.o")) if built.name not in names]
    # The linker takes the first definition of an inline function.
    return _link([*changed, *others], folder)


def _compile(
    sources: Sequence[Path], folder: Path, races: bool, instrumented: Sequence[str] = ()
) -> list[Path]:
    # Less optimized code compiles faster; most of the time goes into the calls for each access.
    flags = [*FLAGS, *(("-O1", "-g1", "-DEMULATOR_RACES", *instrumented) if races else ("-O2",))]

    def build(source: Path) -> Path:
        built = folder / f"{source.parent.name}_{source.stem}.o"
        subprocess.run(["g++", *flags, "-c", str(source), "-o", str(built)], check=True)
        return built

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(build, sources))


def _link(objects: Sequence[Path], folder: Path) -> Path:
    library = folder / "cuda_emulated.so"
    command = ["g++", "-shared", "-pthread", "-Wl,-z,defs", *map(str, objects), "-o", str(library)]
    subprocess.run(command, check=True)
    return library
