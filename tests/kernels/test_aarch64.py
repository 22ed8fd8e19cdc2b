"""The kernels on aarch64: compiled by a cross compiler, run by an emulator of its instructions."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.kernel_programs import KERNELS, PROGRAMS, compile_kernels

COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64")
# A processor with NEON alone: version 7.2 of the emulator and OpenBLAS's kernels for SVE don't agree.
RUN = (str(EMULATOR), "-cpu", "cortex-a57", "-L", "/usr/aarch64-linux-gnu")
FLAGS = ("-std=c++17", "-O3", "-D_GLIBCXX_USE_CXX11_ABI=0", "-ffp-contract=fast", f"-I{KERNELS}")

pytestmark = [
    pytest.mark.skipif(
        COMPILER is None or EMULATOR is None, reason="no aarch64-linux-gnu-g++ or qemu-aarch64"
    ),
    pytest.mark.slow,
    pytest.mark.xdist_group("aarch64"),
]


@pytest.fixture(scope="module")
def openblas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OpenBLAS that the package would get there."""
    folder = tmp_path_factory.mktemp("openblas")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    for tag in ("manylinux_2_27", "manylinux_2_28", "manylinux_2_34"):
        command += ["--platform", f"{tag}_aarch64"]
    command += ["--only-binary", ":all:", "scipy-openblas32>=0.3.33,<0.4"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        pytest.skip("no OpenBLAS for aarch64 could be downloaded")
    zipfile.ZipFile(next(folder.glob("*.whl"))).extractall(folder)
    return next(folder.rglob("libscipy_openblas.so"))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The kernels as the wheel has them."""
    return compile_kernels(str(COMPILER), tmp_path_factory.mktemp("kernels"), *FLAGS)


@pytest.mark.parametrize("source", PROGRAMS, ids=lambda source: source.stem)
def test_the_kernels_pass_their_tests(
    source: Path, objects: list[str], openblas: Path, tmp_path: Path
) -> None:
    program = tmp_path / source.stem
    command = [str(COMPILER), *FLAGS, str(source), *objects, "-o", str(program), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    finished = subprocess.run(
        [*RUN, str(program), str(openblas)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
