"""Instruction sets of the CPU."""

from __future__ import annotations

from pathlib import Path


def processor_flags() -> set[str]:
    """Read the CPU's instruction sets, as Linux names them on x86-64.

    Returns:
        Names such as "avx2" and "avx512f"; empty on other systems.
    """
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return set()
    lines = information.read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
