"""Records the machine of the run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from benchmarks.gpu.record import Record, part_parser

CARD = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit,compute_cap"
PACKAGES = ("torch", "numpy", "mindspore", "pytest", "nvidia-cublas", "nvidia-cusolver", "cupy-cuda13x")


def printed(*command: str) -> str:
    """The output of a command; empty if the command is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def version(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    """Records the machine."""
    arguments = part_parser(__doc__).parse_args()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    record.add(
        "host",
        processor=processor(),
        cpus=len(os.sched_getaffinity(0)),
        memory_gibibytes=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        platform=platform.platform(),
        python=platform.python_version(),
        packages={package: version(package) for package in PACKAGES},
        nvcc=printed("nvcc", "--version").splitlines()[-1:],
    )
    if arguments.dry_run:
        return
    record.add(
        "card", fields=CARD, values=printed("nvidia-smi", f"--query-gpu={CARD}", "--format=csv,noheader")
    )
    with record.attempt("torch"):
        import torch

        properties = torch.cuda.get_device_properties(0)
        record.add(
            "torch",
            version=torch.__version__,
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            device=properties.name,
            capability=[properties.major, properties.minor],
            multiprocessors=properties.multi_processor_count,
            memory_bytes=properties.total_memory,
            cache_bytes=getattr(properties, "L2_cache_size", None),
        )


if __name__ == "__main__":
    main()
