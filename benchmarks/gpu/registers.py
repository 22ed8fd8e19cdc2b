"""Registers, shared memory and spills of the CUDA kernels, from the compiler's log.

    bash scripts/build_cuda_kernels.sh
    python -m benchmarks.gpu.registers build/cuda/ptxas.log

Needs no GPU.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Kernel:
    """One kernel for one architecture.

    Attributes:
        name: its C++ name, without arguments and namespaces.
        architecture: such as "sm_90".
        registers: registers per thread.
        shared: static shared memory per block, in bytes.
        spilled: spilled bytes per thread.
    """

    name: str
    architecture: str
    registers: int = 0
    shared: int = 0
    spilled: int = 0


def read(log: str) -> list[Kernel]:
    """Reads the kernels from a log of ``-Xptxas -v``.

    Args:
        log: the text of ``build/cuda/ptxas.log``.

    Returns:
        One kernel per name and architecture, in the order of the log, with mangled names.
    """
    kernels: list[Kernel] = []
    for line in log.splitlines():
        if entry := re.search(r"Compiling entry function '(\S+)' for '(sm_\d+)'", line):
            kernels.append(Kernel(entry[1], entry[2]))
        elif spilled := re.search(r"(\d+) bytes spill stores", line):
            kernels[-1].spilled += int(spilled[1])
        elif used := re.search(r"Used (\d+) registers", line):
            kernels[-1].registers = int(used[1])
            shared = re.search(r"(\d+) bytes smem", line)
            kernels[-1].shared = int(shared[1]) if shared else 0
    return kernels


def readable(names: Iterable[str]) -> dict[str, str]:
    """Demangles and shortens C++ names.

    Args:
        names: mangled names.

    Returns:
        Each name without return type, namespaces and arguments; unchanged if ``c++filt`` is missing.
    """
    mangled = list(dict.fromkeys(names))
    try:
        finished = subprocess.run(
            ["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        return {name: name for name in mangled}
    return {name: _short(full) for name, full in zip(mangled, finished.stdout.splitlines())}


def _short(full: str) -> str:
    name = full.replace("(anonymous namespace)::", "").replace("ms_kfac::", "")
    name = re.sub(r"\((\w+)\)(\d)", r"\2", name)
    return name.split("(", 1)[0].removeprefix("void ")


def table(kernels: list[Kernel]) -> str:
    """Formats a table with one row per kernel and one column per architecture.

    Args:
        kernels: the result of :func:`read`.

    Returns:
        The table: registers per thread in every column, with "+" and the spilled bytes; shared memory per
        block.
    """
    names = readable(kernel.name for kernel in kernels)
    architectures = sorted({kernel.architecture for kernel in kernels}, key=lambda name: int(name[3:]))
    rows: dict[str, dict[str, Kernel]] = {}
    for kernel in kernels:
        rows.setdefault(kernel.name, {})[kernel.architecture] = kernel
    width = max(map(len, names.values()))
    lines = [" ".join(["kernel".ljust(width), *(name.rjust(8) for name in architectures), "  shared"])]
    for name, row in sorted(rows.items(), key=lambda item: names[item[0]]):
        cells = []
        for architecture in architectures:
            found = row.get(architecture)
            spilled = f"+{found.spilled}" if found and found.spilled else ""
            cells.append((f"{found.registers}{spilled}" if found else "").rjust(8))
        shared = max(kernel.shared for kernel in row.values())
        lines.append(" ".join([names[name].ljust(width), *cells, str(shared).rjust(8)]))
    spilling = [kernel for kernel in kernels if kernel.spilled]
    lines.append(
        f"{len(rows)} kernels, {len(kernels)} with architectures; {len(spilling)} spill, "
        f"{max((kernel.spilled for kernel in spilling), default=0)} bytes a thread at most"
    )
    return "\n".join(lines)


def main() -> None:
    """Prints the table of a log."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("log", type=Path, help="ptxas.log of scripts/build_cuda_kernels.sh")
    log: Path = parser.parse_args().log
    kernels = read(log.read_text()) if log.is_file() else []
    if not kernels:
        parser.error(f"{log} lists no kernels: it must be a log of ptxas -v")
    print(table(kernels))


if __name__ == "__main__":
    main()
