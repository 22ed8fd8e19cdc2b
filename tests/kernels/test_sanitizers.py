"""The kernels' C++ tests under AddressSanitizer and UBSan, and their threads under ThreadSanitizer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ms_kfac.kernels.cpu_library import find_openblas
from tests.support.kernel_programs import KERNELS, PROGRAMS, compile_kernels

COMPILER = shutil.which("g++")

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.slow,
    # One process, which compiles the kernels once for all programs.
    pytest.mark.xdist_group("sanitizers"),
]

FLAGS = (
    *("-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GLIBCXX_USE_CXX11_ABI=0"),
    f"-I{KERNELS}",
)
ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
THREAD = ("-fsanitize=thread",)


def run(source: Path, objects: list[str], folder: Path, *flags: str) -> None:
    openblas = find_openblas()
    assert openblas is not None
    program = folder / source.stem
    command = [str(COMPILER), *FLAGS, *flags, str(source), *objects, "-o", str(program), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    finished = subprocess.run([program, openblas], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The kernels with checks of addresses and of undefined behaviour."""
    return compile_kernels(str(COMPILER), tmp_path_factory.mktemp("kernels"), *FLAGS, *ADDRESS)


@pytest.mark.parametrize("source", PROGRAMS, ids=lambda source: source.stem)
def test_clean_under_address_and_undefined_behaviour_sanitizers(
    source: Path, objects: list[str], tmp_path: Path
) -> None:
    run(source, objects, tmp_path, *ADDRESS)


def test_threads_are_clean_under_the_thread_sanitizer(tmp_path: Path) -> None:
    source = Path(__file__).parent / "cpu" / "test_threads.cc"
    run(source, compile_kernels(str(COMPILER), tmp_path, *FLAGS, *THREAD), tmp_path, *THREAD)
