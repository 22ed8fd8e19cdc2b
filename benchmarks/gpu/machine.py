"""Records the machine of the run, and what the other parts need and do not find on it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from benchmarks.gpu.build import why_no_compiler
from benchmarks.gpu.commands import printed
from benchmarks.gpu.record import Record, part_parser
from benchmarks.gpu.sanitizer import find_tool

CARD = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit,compute_cap"
PACKAGES = ("torch", "numpy", "mindspore", "pytest", "nvidia-cublas", "nvidia-cusolver", "cupy-cuda13x")
# The torch of a dry run computes on the CPU.
NOT_OF_DRY_RUNS = ("gpu", "kernels", "nvcc", "compute-sanitizer")


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


def why_no_torch(record: Record) -> str:
    """Records torch and its card. Returns why it can't run kernels; empty if it can."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return f"{sys.executable} can't import torch: {error}"
    if record.dry_run:
        return ""
    try:
        if not torch.cuda.is_available():
            return f"torch {torch.__version__} finds no GPU"
        properties = torch.cuda.get_device_properties(0)
    except RuntimeError as error:
        return f"torch {torch.__version__} can't use the GPU: {error}"
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
    return ""


def find_missing(record: Record) -> dict[str, str]:
    """What parts may need and is not here, each with the reason."""
    reasons = {"torch": why_no_torch(record)}
    reasons["gpu"] = "" if printed("nvidia-smi", "-L") or not reasons["torch"] else "no GPU was found"
    if reasons["gpu"]:
        reasons["kernels"] = reasons["gpu"]
    reasons["nvcc"] = why_no_compiler()
    reasons["compute-sanitizer"] = "" if find_tool() else "compute-sanitizer is not installed"
    reasons["g++"] = "" if shutil.which("g++") else "g++ is not installed"
    reasons["pytest"] = (
        "" if importlib.util.find_spec("pytest") else f"pytest is not installed for {sys.executable}"
    )
    ignored = NOT_OF_DRY_RUNS if record.dry_run else ()
    return {name: reason for name, reason in reasons.items() if reason and name not in ignored}


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
    if not arguments.dry_run:
        query = printed("nvidia-smi", f"--query-gpu={CARD}", "--format=csv,noheader")
        record.add("card", fields=CARD, values=query)
    for name, reason in find_missing(record).items():
        record.add("missing", of=name, reason=" ".join(reason.split()))


if __name__ == "__main__":
    main()
