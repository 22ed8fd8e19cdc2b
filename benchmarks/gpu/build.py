"""Compiles the CUDA kernels for this card, unless they are already built from these sources."""

from __future__ import annotations

import ctypes
import runpy
import subprocess
import time
from pathlib import Path

from benchmarks.gpu.machine import printed
from benchmarks.gpu.parts import ROOT
from benchmarks.gpu.record import Record, part_parser

KERNELS = ROOT / "ms_kfac" / "kernels"
LIBRARY = KERNELS / "_cuda.so"


def is_present(library: Path) -> bool:
    """Whether a library exists and was built from the current sources."""
    if not library.exists():
        return False
    handle = ctypes.CDLL(str(library))
    if not hasattr(handle, "ms_kfac_sources"):
        return False
    handle.ms_kfac_sources.restype = ctypes.c_char_p
    # Not through the package, which needs MindSpore.
    fingerprint = runpy.run_path(str(KERNELS / "fingerprint.py"))["fingerprint"]
    return bool(handle.ms_kfac_sources().decode() == fingerprint(KERNELS / "interface", KERNELS / "cuda"))


def architectures(capabilities: str) -> list[str]:
    """The architectures to compile for.

    Args:
        capabilities: what nvidia-smi prints as ``compute_cap``, one line per card, such as "9.0".

    Returns:
        The architecture numbers without duplicates, such as "90".
    """
    return sorted(
        {line.strip().replace(".", "") for line in capabilities.splitlines() if line.strip()}, key=int
    )


def main() -> int:
    """Builds the kernels.

    Returns:
        The exit status of the build script.
    """
    arguments = part_parser(__doc__).parse_args()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    if arguments.dry_run or is_present(LIBRARY):
        record.add("build", present=LIBRARY.exists(), seconds=0)
        return 0
    found = architectures(printed("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"))
    command = ["bash", "scripts/build_cuda_kernels.sh", *(["--archs", " ".join(found)] if found else [])]
    start = time.monotonic()
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    record.add("build", command=command, exit_status=status, seconds=round(time.monotonic() - start, 1))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
