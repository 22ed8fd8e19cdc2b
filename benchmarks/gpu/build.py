"""Compiles the CUDA kernels for this card, unless they are already built from these sources."""

from __future__ import annotations

import ctypes
import runpy
import subprocess
import time
from pathlib import Path

from benchmarks.gpu import registers
from benchmarks.gpu.commands import printed
from benchmarks.gpu.record import Record, part_parser
from benchmarks.gpu.sources import ROOT

KERNELS = ROOT / "ms_kfac" / "kernels"
LIBRARY = KERNELS / "_cuda.so"
SCRIPT = ROOT / "scripts" / "build_cuda_kernels.sh"


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


def why_no_compiler() -> str:
    """Why the kernels can't be compiled if they must be; empty if they can."""
    if is_present(LIBRARY):
        return ""
    done = subprocess.run(["bash", str(SCRIPT), "--list"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().removeprefix("error: ")


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


def capabilities() -> str:
    """The compute capabilities of the cards, one per line, from nvidia-smi or else from torch."""
    if found := printed("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"):
        return found
    import torch

    return "\n".join(
        "{}.{}".format(*torch.cuda.get_device_capability(index)) for index in range(torch.cuda.device_count())
    )


def record_registers(record: Record, log: Path) -> None:
    """Records the kernels of the compiler's log, and a failure for each that spills registers."""
    kernels = registers.read(log.read_text())
    record.add("kernels", number=len(kernels), most_registers=max(kernel.registers for kernel in kernels))
    for kernel in kernels:
        if kernel.spilled:
            record.fail(kernel.name, f"spills {kernel.spilled} bytes per thread on {kernel.architecture}")


def main() -> int:
    """Builds the kernels.

    Returns:
        The exit status of the build script.
    """
    parser = part_parser(__doc__)
    parser.add_argument("--architectures", help='such as "90"; default: those of the cards')
    arguments = parser.parse_args()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    if arguments.dry_run or is_present(LIBRARY):
        record.add("build", present=LIBRARY.exists(), seconds=0)
        return 0
    chosen = arguments.architectures or " ".join(architectures(capabilities()))
    command = ["bash", str(SCRIPT), "--archs", chosen]
    start = time.monotonic()
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    record.add("build", command=command, exit_status=status, seconds=round(time.monotonic() - start, 1))
    if status == 0:
        with record.attempt("registers"):
            record_registers(record, ROOT / "build" / "cuda" / "ptxas.log")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
