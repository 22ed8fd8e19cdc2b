"""The library of the GPU's kernels as the package sees it, by a stand-in that a C++ compiler builds."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ms_kfac import kernels
from ms_kfac.kernels import native_library, precision
from ms_kfac.kernels.fingerprint import fingerprint
from ms_kfac.kernels.library import CudaLibrary, library
from ms_kfac.kernels.operator import is_native, native_operator
from ms_kfac.kernels.registry import REGISTRY
from tests.support.device import use

INTERFACE = Path(native_library.__file__).parent / "interface"
COMPILER = shutil.which("g++")

# One of the operators, which always fails.
KERNELS = """
#include <stdexcept>
#include "messages.h"
extern "C" int ms_kfac_cuda_architectures(char* buffer, int size) {
  if (size > 5) __builtin_memcpy(buffer, "80 90", 6);
  return 5;
}
extern "C" int MomentumStep() {
  ms_kfac::warn_once("the GPU is warm");
  return ms_kfac::report_error("MomentumStep", std::runtime_error("no GPU"));
}
"""

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of kernels instead of the package's; it has no library yet."""
    monkeypatch.delenv("MS_KFAC_NATIVE", raising=False)
    # The package exports a function of the module's name.
    monkeypatch.setitem(CudaLibrary.__init__.__globals__, "FOLDER", tmp_path)
    (tmp_path / "interface").symlink_to(INTERFACE)
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "kernels.cc").write_text(KERNELS)
    library.cache_clear()
    yield tmp_path
    library.cache_clear()


@pytest.fixture
def built(folder: Path) -> Path:
    sources = fingerprint(INTERFACE, folder / "cuda")
    output = folder / "_cuda.so"
    subprocess.run(
        [
            *(str(COMPILER), "-std=c++17", "-shared", "-fPIC", f"-I{INTERFACE}"),
            *("-D_GLIBCXX_USE_CXX11_ABI=0", f'-DMS_KFAC_SOURCES="{sources}"'),
            *(str(INTERFACE / "messages.cc"), str(folder / "cuda" / "kernels.cc"), "-o", str(output)),
        ],
        check=True,
    )
    return output


@needs_compiler
def test_a_library_of_these_sources_is_loaded(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = CudaLibrary()
    assert (loaded.path, loaded.reason) == (str(built), "")
    assert loaded.architectures() == [80, 90]
    monkeypatch.setattr(precision, "_chosen", {})
    monkeypatch.delenv("MS_KFAC_PRECISION", raising=False)
    monkeypatch.delenv("MS_KFAC_PRECONDITIONING_PRECISION", raising=False)
    assert loaded.settings() == "sm_80 sm_90, covariances in tf32, preconditioning in float32"
    assert loaded.exports("MomentumStep")
    assert not loaded.exports("KroneckerStatistics")


@needs_compiler
def test_a_library_of_other_sources_is_refused(built: Path) -> None:
    (built.parent / "cuda" / "kernels.cc").write_text(KERNELS + "// changed")
    refused = CudaLibrary()
    assert not refused.path
    assert not refused.exports("MomentumStep")
    assert refused.reason == (
        "_cuda.so was built from other sources: run bash scripts/build_cuda_kernels.sh again"
    )


@needs_compiler
def test_it_is_switched_off_with_the_other(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MS_KFAC_NATIVE", "0")
    assert CudaLibrary().reason == "MS_KFAC_NATIVE=0"


@needs_compiler
def test_another_mindspore_is_refused(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_library.ms, "__version__", "2.11.0")
    assert CudaLibrary().reason == "kernels are tested with MindSpore 2.7.2 to 2.10, got 2.11.0"


def test_the_reason_says_how_to_build_it(folder: Path) -> None:
    missing = CudaLibrary()
    assert not missing.path
    assert missing.reason == "not built (bash scripts/build_cuda_kernels.sh does that)"


def test_file_that_is_not_a_library_is_refused(folder: Path) -> None:
    (folder / "_cuda.so").write_text("no library")
    assert CudaLibrary().reason.startswith("_cuda.so can't be loaded: ")


@needs_compiler
def test_exported_operators_are_native_on_a_gpu(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use("GPU", monkeypatch)
    assert {name for name in REGISTRY if is_native(name)} == {"momentum_step"}
    assert native_operator("momentum_step", owners=[0]).func == f"{built}:MomentumStep"
    rows = kernels.status().splitlines()
    assert rows[0].startswith(f"GPU (in use): library {built}, sm_80 sm_90, covariances in ")
    forms = dict(row.split(maxsplit=1) for row in rows[2 : 2 + len(REGISTRY)])
    for name in REGISTRY:
        lacking = "fallback  not in the GPU's library"
        assert forms[name] == ("native" if name == "momentum_step" else lacking)


@needs_compiler
def test_the_cpu_goes_by_its_own_library(built: Path) -> None:
    expected = list(REGISTRY) if library("CPU").path else []
    assert [name for name in REGISTRY if is_native(name)] == expected


@needs_compiler
@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_status_shows_warnings_and_errors_of_kernels(
    device: str, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(device, monkeypatch)
    handle = library("GPU").handle
    assert handle is not None
    assert handle.MomentumStep() == 1
    rows = kernels.status().splitlines()
    assert "warning: the GPU is warm" in rows
    assert "last error: MomentumStep: no GPU" in rows
