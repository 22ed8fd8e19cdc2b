"""Builds and loads stand-ins for the CUDA libraries, so that MindSpore's GPU backend runs without a GPU.

MindSpore's wheel contains its GPU plugin. `device.cc` and `arithmetic.cc` implement some of the functions
that the plugin imports from CUDA and from MindSpore's own CUDA kernels. All other imported functions return
success and do nothing. So graphs are compiled for a GPU, kernels are selected, memory is copied and branches
are taken as on a GPU. Most tensors of floats hold meaningless values.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable

_SOURCES = Path(__file__).parent
_PLUGIN = "libmindspore_gpu.so.11.6"
_KERNELS = "libcuda_ops.so.11"
_CUDA = {
    "libcudart.so.11.0": r"cuda[A-Z]",
    "libcuda.so.1": r"cu[A-Z]",
    "libcublas.so.11": "cublas",
    "libcudnn.so.8": "cudnn",
    "libcufft.so.10": "cufft",
    "libcurand.so.10": "curand",
    "libcusolver.so.11": "cusolver",
    "libcusparse.so.11": "cusparse",
    "libnvrtc.so.11.2": "nvrtc",
}


def _plugins() -> Path:
    found = importlib.util.find_spec("mindspore")
    assert found is not None and found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "lib" / "plugin"


def missing() -> str | None:
    """Returns why the stand-in cannot be built here; None if it can."""
    if platform.machine() != "x86_64":
        return f"the stand-in for a GPU needs x86_64, this is {platform.machine()}"
    for tool in ("g++", "nm"):
        if shutil.which(tool) is None:
            return f"no {tool}"
    for file in (_PLUGIN, f"gpu/{_KERNELS}"):
        if not (_plugins() / file).exists():
            return f"this build of MindSpore has no GPU plugin ({file})"
    return None


def _symbols(library: Path, which: str) -> set[str]:
    lines = subprocess.run(
        ["nm", "-D", which, str(library)], capture_output=True, text=True, check=True
    ).stdout
    return {re.sub("@.*", "", line.split()[-1]) for line in lines.splitlines()}


def _compile(folder: Path, name: str, wanted: set[str], source: str | None) -> None:
    code, output = folder / f"{name}.cc", folder / name
    compiler = ["g++", "-std=c++17", "-O1", "-fPIC", "-w", "-c"]
    objects = []
    defined: set[str] = set()
    if source is not None:
        objects.append(folder / f"{source}.o")
        subprocess.run([*compiler, str(_SOURCES / source), "-o", str(objects[0])], check=True)
        listing = subprocess.run(
            ["nm", "--defined-only", str(objects[0])], capture_output=True, text=True, check=True
        ).stdout
        defined = {line.split()[-1] for line in listing.splitlines()}
        strange = {
            name for name in defined if re.search("BinaryOp|Cast|ArrayReduce|CalA|CalS", name)
        } - wanted
        assert not strange, f"{source}: MindSpore does not import {sorted(strange)[:3]}"
    aliases = "".join(
        f'asm(".globl {name}\\n.type {name}, @function\\n.set {name}, nothing\\n");\n'
        for name in sorted(wanted - defined)
    )
    code.write_text(
        'extern "C" __attribute__((visibility("hidden"))) int nothing() { return 0; }\n' + aliases
    )
    objects.append(folder / f"{name}.o")
    subprocess.run([*compiler, str(code), "-o", str(objects[-1])], check=True)
    link = ["g++", "-shared", f"-Wl,-soname,{name}", "-o", str(output), *map(str, objects)]
    subprocess.run(link, check=True)


def build(folder: Path) -> None:
    """Compile the stand-in libraries.

    Args:
        folder: an empty folder for the libraries.
    """
    asked = _symbols(_plugins() / _PLUGIN, "--undefined-only")
    kernels = asked & _symbols(_plugins() / "gpu" / _KERNELS, "--defined-only")
    _compile(folder, _KERNELS, kernels, "arithmetic.cc")
    wanted = {name for name in asked if any(re.match(prefix, name) for prefix in _CUDA.values())}
    for library in _CUDA:
        # The first library holds all functions. The others exist because the plugin links to them.
        first = library == "libcudart.so.11.0"
        _compile(folder, library, wanted if first else set(), "device.cc" if first else None)
    # MindSpore runs this program to find the version of CUDA.
    compiler = folder / "cuda" / "bin" / "nvcc"
    compiler.parent.mkdir(parents=True)
    compiler.write_text('#!/bin/sh\necho "Cuda compilation tools, release 11.6, V11.6.124"\n')
    compiler.chmod(0o755)


def load(folder: Path) -> Callable[[], tuple[int, int]]:
    """Load the libraries. Must be called before MindSpore is imported.

    Args:
        folder: the folder that was passed to :func:`build`.

    Returns:
        A function that returns the number of reads of device memory by the host so far, and of bytes.
    """
    os.environ["CUDA_HOME"] = str(folder / "cuda")
    # Otherwise an operator without a GPU kernel silently runs on the CPU, with copies in both directions.
    os.environ["MS_DISABLE_KERNEL_BACKOFF"] = "1"
    for library in (*_CUDA, _KERNELS):
        ctypes.CDLL(str(folder / library), ctypes.RTLD_GLOBAL)
    device = ctypes.CDLL(str(folder / "libcudart.so.11.0"))
    device.stand_in_reads.restype = device.stand_in_bytes_read.restype = ctypes.c_int64
    return lambda: (device.stand_in_reads(), device.stand_in_bytes_read())
