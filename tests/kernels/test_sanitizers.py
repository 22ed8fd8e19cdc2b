"""The kernels' C++ tests under AddressSanitizer and UBSan, and their threads under ThreadSanitizer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ms_kfac.kernels.cpu_library import find_openblas

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "ms_kfac" / "kernels" / "cpu"
MESSAGES = ROOT / "ms_kfac" / "kernels" / "interface" / "messages.cc"
TESTS = sorted((Path(__file__).parent / "cpu").glob("test_*.cc"))
COMPILER = shutil.which("g++")

pytestmark = [pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"), pytest.mark.slow]


def run(source: Path, folder: Path, *flags: str) -> None:
    openblas = find_openblas()
    assert openblas is not None
    program = folder / source.stem
    kernels = [MESSAGES, *sorted(KERNELS.glob("*.cc"))]
    command = [
        *(
            str(COMPILER),
            "-std=c++17",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-D_GLIBCXX_USE_CXX11_ABI=0",
        ),
        *flags,
        *(f"-I{KERNELS}", str(source), *map(str, kernels), "-o", str(program), "-ldl", "-lpthread"),
    ]
    subprocess.run(command, check=True)
    finished = subprocess.run([program, openblas], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("source", TESTS, ids=lambda source: source.stem)
def test_clean_under_address_and_undefined_behaviour_sanitizers(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def test_threads_are_clean_under_the_thread_sanitizer(tmp_path: Path) -> None:
    run(Path(__file__).parent / "cpu" / "test_threads.cc", tmp_path, "-fsanitize=thread")
