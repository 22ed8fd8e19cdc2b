"""The library of the GPU's kernels as nvcc builds it: architectures, symbols, spills; its script."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.gpu.registers import read
from ms_kfac.kernels.library import CudaLibrary, library
from ms_kfac.kernels.operator import is_native
from ms_kfac.kernels.registry import REGISTRY
from tests.support.device import use
from tests.support.fatbin import MACHINE_CODE, PTX, entries

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "ms_kfac" / "kernels" / "cuda"
SHARED = {
    "ms_kfac_sources",
    "ms_kfac_last_error",
    "ms_kfac_warnings",
    "ms_kfac_refresh_layouts",
    "ms_kfac_set_judge",
    "ms_kfac_set_reporter",
    "ms_kfac_cuda_architectures",
}

# One process builds, where several run the tests.
pytestmark = pytest.mark.xdist_group("cuda_build")


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "scripts" / "build_cuda_kernels.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Build:
    """A built library, the log of the compiler, and the architectures it was to be built for."""

    library: Path
    log: str
    architectures: list[int]


@pytest.fixture(scope="session")
def listed() -> list[int]:
    """The architectures that nvcc would build for."""
    finished = script("--list")
    if "no nvcc was found" in finished.stderr:
        pytest.skip("no nvcc")
    assert finished.returncode == 0, finished.stderr
    return [int(number) for number in finished.stdout.splitlines()[1].split()]


@pytest.fixture(scope="session")
def build(listed: list[int], tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The package's kernels, built aside."""
    if not list(SOURCES.rglob("*.cu")):
        pytest.skip("no kernel is written yet")
    # Without and with tensor cores for TF32 and BF16; each of the others takes as long again.
    # ALL_ARCHITECTURES=1 builds them, too.
    chosen = listed if os.environ.get("ALL_ARCHITECTURES") == "1" else sorted({listed[0], listed[-1]})
    folder = tmp_path_factory.mktemp("cuda")
    output = folder / "_cuda.so"
    names = " ".join(map(str, chosen))
    finished = script("--output", str(output), "--build", str(folder / "build"), "--archs", names)
    assert finished.returncode == 0, finished.stderr
    # The package looks for a library's sources next to it.
    for sources in (SOURCES, SOURCES.parent / "interface"):
        (folder / sources.name).symlink_to(sources)
    return Build(output, (folder / "build" / "ptxas.log").read_text(), chosen)


def test_every_kernel_has_machine_code_for_every_architecture_and_ptx_of_the_newest(build: Build) -> None:
    found = Counter(entries(build.library))
    files = found[MACHINE_CODE, build.architectures[-1]]
    assert files > 0
    expected = {(MACHINE_CODE, architecture): files for architecture in build.architectures}
    assert found == {**expected, (PTX, build.architectures[-1]): files}


def test_no_kernel_spills_registers(build: Build) -> None:
    kernels = read(build.log)
    numbers = Counter(kernel.architecture for kernel in kernels)
    assert set(numbers) == {f"sm_{number}" for number in build.architectures}
    assert len(set(numbers.values())) == 1, numbers
    assert not [kernel for kernel in kernels if kernel.spilled]


def test_the_compilers_warn_of_nothing(build: Build) -> None:
    assert not [line for line in build.log.splitlines() if "warning" in line.lower()]


def test_operators_alone_are_exported(build: Build) -> None:
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=just-symbols", str(build.library)],
        capture_output=True,
        text=True,
        check=True,
    )
    exported = set(listing.stdout.split())
    assert exported >= SHARED
    functions = {function for function in REGISTRY.values() if function in exported}
    assert exported - SHARED == functions | {f"{function}Init" for function in functions}


def test_it_loads_without_a_gpu_and_has_the_operators_it_exports(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MS_KFAC_NATIVE", raising=False)
    # The package exports a function of the module's name.
    monkeypatch.setitem(CudaLibrary.__init__.__globals__, "FOLDER", build.library.parent)
    use("GPU", monkeypatch)
    library.cache_clear()
    try:
        loaded = library("GPU")
        assert isinstance(loaded, CudaLibrary)
        assert loaded.reason == ""
        assert loaded.architectures() == build.architectures
        exported = {name for name, function in REGISTRY.items() if loaded.exports(function)}
        assert exported
        assert exported == {name for name in REGISTRY if is_native(name)}
    finally:
        library.cache_clear()


def test_other_architectures_are_refused(listed: list[int]) -> None:
    refused = script("--archs", f"{listed[0]} 12")
    assert refused.returncode == 1
    assert "error: --archs must be numbers of which" in refused.stderr
    assert "got 12; it knows sm_" in refused.stderr


def test_architectures_can_be_chosen(listed: list[int]) -> None:
    chosen = script("--list", "--archs", f"{listed[-1]} {listed[0]}")
    assert chosen.stdout.splitlines()[1] == f"{listed[0]} {listed[-1]}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "80"], "error: unknown option --arch; see --help."),
        (["--output"], "error: --output needs a value."),
        (["--jobs", "0"], "error: --jobs must be a positive number, got 0."),
    ],
)
def test_other_options_are_refused(arguments: list[str], message: str) -> None:
    refused = script(*arguments)
    assert refused.returncode == 2
    assert message in refused.stderr
