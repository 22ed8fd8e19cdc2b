"""The library of the CPU's kernels: threads, switching it off, living without it, without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ms_kfac import kernels
from ms_kfac.kernels import cpu_library as cpu
from ms_kfac.kernels import native_library as native
from ms_kfac.kernels.cpu_library import CpuLibrary
from ms_kfac.kernels.fingerprint import expected_fingerprint, fingerprint
from ms_kfac.kernels.library import library
from tests.support.native import needs_native

ROOT = Path(__file__).resolve().parents[2]

STEP = """
import numpy as np
import mindspore as ms
from mindspore import nn
import ms_kfac
ms.set_device("CPU")
ms.set_context(mode=ms.GRAPH_MODE)
net = nn.SequentialCell(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Dense(48, 4))
optimizer = ms_kfac.KFAC(net, 0.1, factor_interval=1, inverse_interval=1)
step = nn.TrainOneStepCell(nn.WithLossCell(net, nn.CrossEntropyLoss()), optimizer)
x = ms.Tensor(np.random.default_rng(0).standard_normal((5, 2, 4, 4)).astype(np.float32))
losses = [float(step(x, ms.Tensor([0, 1, 2, 3, 0], ms.int32)).asnumpy()) for _ in range(3)]
assert losses[2] < losses[0], losses
print(ms_kfac.kernels.status())
"""

# The dense layer is large enough for all threads. Prints the processor's ms per 100 ms of rest after a step.
REST = """
import time
import numpy as np
import mindspore as ms
from mindspore import nn
import ms_kfac
ms.set_device("CPU")
ms.set_context(mode=ms.GRAPH_MODE)
net = nn.Dense(1024, 64)
optimizer = getattr(ms_kfac, METHOD)(net, 0.01)
step = nn.TrainOneStepCell(nn.WithLossCell(net, nn.CrossEntropyLoss()), optimizer)
x = ms.Tensor(np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32))
y = ms.Tensor(np.arange(64, dtype=np.int32))
for _ in range(12):
    step(x, y).asnumpy()
    begun = time.process_time()
    time.sleep(0.1)
    print(1000 * (time.process_time() - begun))
"""

needs_library = needs_native("momentum_step")


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_switched_off_everything_is_composed_and_trains() -> None:
    finished = run(STEP, MS_KFAC_NATIVE="0", MS_KFAC_REQUIRE_NATIVE="0")
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[:2] == [
        "CPU (in use): no native library: MS_KFAC_NATIVE=0",
        "GPU: no native library: MS_KFAC_NATIVE=0",
    ]
    assert len(lines) > 2
    assert all(line.split()[1] == "fallback" for line in lines[2:])


@needs_library
@pytest.mark.parametrize("method", ["KFAC", "SKFAC", "EKFAC"])
def test_no_thread_spins_after_a_step(method: str) -> None:
    # The network's own operators come next, and need every processor. OpenBLAS's default is some 80 ms.
    finished = run(f"METHOD = {method!r}\n{REST}")
    assert finished.returncode == 0, finished.stderr
    milliseconds = [float(line) for line in finished.stdout.splitlines()]
    assert sorted(milliseconds)[6] < 2.0, milliseconds


@needs_library
def test_openblas_settings_last_while_it_loads_and_keep_those_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "processor_flags", lambda: {"avx512bw"})
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "HASWELL")
    before = dict(os.environ)
    with cpu._openblas_settings():
        assert dict(os.environ) == {**before, "OPENBLAS_THREAD_TIMEOUT": "18"}
    assert dict(os.environ) == before


@needs_library
def test_status_without_openblas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "find_openblas", lambda: None)
    refused = CpuLibrary()
    assert not refused.path
    assert refused.reason == "the package scipy-openblas32 is not installed"


@needs_library
def test_a_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "expected_fingerprint", lambda sources: "0123456789abcdef")
    refused = CpuLibrary()
    assert not refused.path
    assert "was built from other sources: pip install -e . builds it" in refused.reason


@pytest.mark.parametrize("version", ["2.7.1", "2.7.1.post1", "2.11.0", "3.0.0"])
def test_another_mindspore_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MS_KFAC_NATIVE", raising=False)
    monkeypatch.setattr(native.ms, "__version__", version)
    refused = CpuLibrary()
    assert not refused.path
    assert refused.reason == f"kernels are tested with MindSpore 2.7.2 to 2.10, got {version}"


@needs_library
@pytest.mark.parametrize("version", ["2.7.2", "2.8.0", "2.9.0", "2.10.0", "2.10.1"])
def test_every_tested_mindspore_is_accepted(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.ms, "__version__", version)
    assert CpuLibrary().reason == ""


def test_the_fingerprint_follows_the_sources(tmp_path: Path) -> None:
    (tmp_path / "operators").mkdir()
    (tmp_path / "a.cc").write_text("int a;")
    first = fingerprint(tmp_path)
    (tmp_path / "operators" / "b.h").write_text("int b;")
    second = fingerprint(tmp_path)
    (tmp_path / "a.cc").write_text("int c;")
    assert len({first, second, fingerprint(tmp_path)}) == 3
    (tmp_path / "notes.txt").write_text("no source")
    (tmp_path / "a.cc").write_text("int a;")
    assert fingerprint(tmp_path) == second


def test_an_installed_package_has_fingerprints_instead_of_sources(tmp_path: Path) -> None:
    (tmp_path / "_fingerprints.txt").write_text("cpu 0123456789abcdef\ncuda 123456789abcdef0\n")
    assert expected_fingerprint(tmp_path / "cuda") == "123456789abcdef0"
    for folder in ("interface", "cuda"):
        (tmp_path / folder).mkdir()
    assert expected_fingerprint(tmp_path / "cuda") == fingerprint(tmp_path / "interface", tmp_path / "cuda")


@needs_library
def test_threads_by_environment() -> None:
    code = "import ms_kfac; print(ms_kfac.kernels.status().splitlines()[0])"
    assert run(code, MS_KFAC_THREADS="1").stdout.endswith(", 1 threads\n")
    for wrong in ("none", "0", "²", "4294967297"):
        refused = run(code, MS_KFAC_THREADS=wrong)
        assert refused.returncode != 0
        assert f"MS_KFAC_THREADS must be an int from 1 to 1024, got '{wrong}'" in refused.stderr


@needs_library
def test_set_threads() -> None:
    before = library("CPU").threads()
    try:
        kernels.set_threads(3)
        assert library("CPU").threads() == 3
        assert ", 3 threads" in kernels.status()
    finally:
        kernels.set_threads(before)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2", 1025, 2**32 + 1])
def test_a_wrong_number_of_threads_is_refused(count: object) -> None:
    with pytest.raises(ValueError, match="set_threads: count must be an int from 1 to 1024"):
        kernels.set_threads(count)  # type: ignore[arg-type]


@needs_library
def test_libraries_are_not_searched_for_outside_of_their_packages(tmp_path: Path) -> None:
    """Files of their names in the working folder, on LD_LIBRARY_PATH and on the search path of Python."""
    blas = tmp_path / "scipy_openblas32/lib"
    for folder in (tmp_path, tmp_path / "ms_kfac/kernels", blas):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (Path(library("CPU").path).name, "_cuda.so", "libscipy_openblas.so"):
            (folder / name).write_text("no library")
    (blas.parent / "__init__.py").touch()
    code = (
        f"import os, sys; os.chdir({str(tmp_path)!r}); sys.path.insert(0, ''); "
        "from ms_kfac.kernels.library import library as of; "
        "print(of('CPU').path, of('CPU').openblas, of('GPU').reason, sep='\\n')"
    )
    finished = run(code, LD_LIBRARY_PATH=f"{tmp_path}:{blas}")
    path, openblas, reason = finished.stdout.splitlines()
    assert path == library("CPU").path
    assert openblas == str(library("CPU").openblas)
    assert "can't be loaded" not in reason


def test_there_is_no_library_for_other_devices() -> None:
    with pytest.raises(ValueError, match="library: device must be one of CPU, GPU, got 'Ascend'"):
        library("Ascend")
