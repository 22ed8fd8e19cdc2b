"""Damped inverse of one factor: the native refresh, MindSpore's MatrixInverse, and LAPACK.

    python benchmarks/inverses.py [--sizes 576 1024 2304] [--rounds 10] [--output FILE]

The three alternate in every round. LAPACK means spotrf and spotri of the same OpenBLAS and thread count as
the kernels; it fills only half of the inverse. Times are of whole calls from Python, in graph mode. OpenBLAS
threads spin while they wait, so results on a busy machine are meaningless.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from benchmarks.machine import describe_run
from ms_kfac.kernels.cpu_library import find_openblas
from ms_kfac.kernels.library import library
from ms_kfac.ops.refresh.kronecker_refresh import KroneckerRefresh

DAMPING = 0.01


class MatrixInverse(nn.Cell):
    """The damped inverse by MindSpore's operator."""

    def __init__(self) -> None:
        super().__init__()
        self.inverse = ops.MatrixInverse()
        self.eye = ops.Eye()

    def construct(self, factor: Tensor) -> Tensor:
        """The inverse with a damping of DAMPING."""
        dimension = factor.shape[0]
        return self.inverse(factor + DAMPING * self.eye(dimension, dimension, ms.float32))


class Lapack:
    """The damped inverse by spotrf and spotri."""

    def __init__(self) -> None:
        path = find_openblas()
        if path is None:
            raise SystemExit("the package scipy-openblas32 is not installed")
        # The library handle of the kernels, so that the CPU dispatch is the same.
        self.openblas = ctypes.CDLL(str(path))

    def __call__(self, matrix: NDArray[np.float32]) -> None:
        """Computes the inverse in the upper triangle of the matrix."""
        size, info = ctypes.c_int(len(matrix)), ctypes.c_int(0)
        data = matrix.ctypes.data_as(ctypes.c_void_p)
        self.openblas.scipy_openblas_set_num_threads(library("CPU").threads())
        for function in (self.openblas.scipy_spotrf_, self.openblas.scipy_spotri_):
            function(b"L", ctypes.byref(size), data, ctypes.byref(size), ctypes.byref(info))
            if info.value:
                raise SystemExit(f"LAPACK returned {info.value}")
        self.openblas.scipy_openblas_set_num_threads(1)


def factor_of(size: int) -> NDArray[np.float32]:
    """A covariance matrix from twice as many rows as columns."""
    rows = np.random.default_rng(size).standard_normal((2 * size, size), dtype=np.float32)
    return rows.T @ rows / np.float32(2 * size)


def native_refresh(factor: NDArray[np.float32]) -> KroneckerRefresh:
    """The native refresh of a layer with this A, and a 1x1 G for which A's damping is DAMPING."""
    size = len(factor)

    def parameter(name: str, value: Any) -> Parameter:
        return Parameter(Tensor(np.asarray(value, np.float32)), name=f"{name}{size}", requires_grad=False)

    mean = float(np.trace(factor)) / size
    values = {"A": factor, "G": [[mean]], "weights": [1.0, 1.0]}
    arrays = [parameter(name, value) for name, value in values.items()]
    arrays += [parameter("A_inverse", np.eye(size)), parameter("G_inverse", [[1.0]])]
    refresh = KroneckerRefresh(f"layer of {size}", arrays)
    if not refresh.native:
        raise SystemExit(f"no native kernel: {library('CPU').reason}")
    return refresh


def seconds(call: Callable[[], Any]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(size: int, rounds: int, lapack: Lapack) -> dict[str, list[float]]:
    """Interleaved times of all three, in milliseconds."""
    factor = factor_of(size)
    damped = factor + np.float32(DAMPING) * np.eye(size, dtype=np.float32)
    refresh, inverse = native_refresh(factor), MatrixInverse()
    tensor, damping = Tensor(factor), Tensor(DAMPING**2, ms.float32)
    expected = np.linalg.inv(damped.astype(np.float64))
    found = []
    times: dict[str, list[float]] = {"native": [], "MatrixInverse": [], "LAPACK": []}
    for round_ in range(rounds + 1):
        native = seconds(lambda: refresh(damping))
        builtin = seconds(lambda: found.append(inverse(tensor).asnumpy()))
        matrix = damped.copy()
        direct = seconds(partial(lapack, matrix))
        # The first round compiles.
        if round_ > 0:
            for name, value in zip(times, (native, builtin, direct)):
                times[name].append(1e3 * value)
    for name, result in (("native", refresh.arrays[3].asnumpy()), ("MatrixInverse", found[-1])):
        error = float(np.abs(result - expected).max() / np.abs(expected).max())
        print(f"{size}: {name}, largest error {error:.1e} of the largest entry")
    return times


def main() -> None:
    """Measures and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[576, 1024, 2304])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    lapack = Lapack()
    report: dict[str, Any] = {**describe_run(), "threads": library("CPU").threads(), "sizes": {}}
    for size in arguments.sizes:
        times = measure(size, arguments.rounds, lapack)
        quartiles = {name: np.percentile(values, [25, 50, 75]).tolist() for name, values in times.items()}
        medians = {name: values[1] for name, values in quartiles.items()}
        ratios = {name: medians[name] / medians["native"] for name in ("MatrixInverse", "LAPACK")}
        report["sizes"][size] = {"milliseconds": quartiles, "ratios_to_native": ratios}
        for name, (low, median, high) in quartiles.items():
            print(f"{size}: {name} {median:.2f} ms (quartiles {low:.2f} to {high:.2f})")
        print(f"{size}: MatrixInverse takes {ratios['MatrixInverse']:.1f} times, ", end="")
        print(f"LAPACK {ratios['LAPACK']:.2f} times as long as the native refresh")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
