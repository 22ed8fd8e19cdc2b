"""Runs and times kernels on a GPU, or on the CPU for a dry run."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.support.aot import ROOT, AotError, AotLibrary, AotOperator, compile_attributes

KERNELS = ROOT / "ms_kfac" / "kernels"
# Calls with a longer launch need no spin: they wait for the device themselves.
LONGEST_SPIN_MS = 20.0
CALIBRATION_CYCLES = 10_000_000
# Used if the driver does not report the L2 cache size: larger than that of any card until 2026.
LARGEST_CACHE = 128 * 2**20


class CudaClock:
    """CUDA events around a call, after a flush of the L2 cache.

    The device first spins for as long as the host needs to launch the call. So the device's queue is never
    empty, and the time is that of the device, without Python.
    """

    def __init__(self) -> None:
        cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0) or LARGEST_CACHE
        self.cold = torch.empty(2 * cache, dtype=torch.uint8, device="cuda")
        self.spins: dict[int, int] = {}
        start, end = self._events()
        torch.cuda._sleep(CALIBRATION_CYCLES)
        start.record()
        torch.cuda._sleep(CALIBRATION_CYCLES)
        end.record()
        torch.cuda.synchronize()
        self.cycles_per_ms = CALIBRATION_CYCLES / start.elapsed_time(end)

    def prepare(self, call: Callable[[], Any]) -> None:
        """Runs the call and measures how long the host takes to launch it."""
        call()
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        launched = 1e3 * (time.perf_counter() - start)
        torch.cuda.synchronize()
        self.spins[id(call)] = int(min(1.5 * launched + 0.05, LONGEST_SPIN_MS) * self.cycles_per_ms)

    def milliseconds(self, call: Callable[[], Any]) -> float:
        """The device's time for one call."""
        start, end = self._events()
        self.cold.zero_()
        torch.cuda._sleep(self.spins[id(call)])
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))

    @staticmethod
    def _events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
        return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


class HostClock:
    """Wall time, for dry runs."""

    def prepare(self, call: Callable[[], Any]) -> None:
        """Runs the call."""
        call()

    def milliseconds(self, call: Callable[[], Any]) -> float:
        """The host's time for one call."""
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)


class BoundOperator(AotOperator):
    """A kernel bound to fixed tensors, so that a call costs one ctypes call."""

    def bind(self) -> Callable[[int], None]:
        """Prepares the arguments of the call.

        Returns:
            A function that launches the kernel on the given stream without waiting.
        """
        axes, shapes, types = self._describe(self.arrays)
        pointers = [tensor.data_ptr() for tensor in (*self.arrays, *self.workspaces)]
        data, count = (ctypes.c_void_p * len(pointers))(*pointers), len(pointers)

        def launch(stream: int) -> None:
            if self.function(count, data, axes, shapes, types, ctypes.c_void_p(stream or None), self.extra):
                raise AotError(self.library.last_error())

        return launch

    def _make_workspaces(self) -> list[torch.Tensor]:
        device = self.library.device
        return [torch.empty(size, dtype=torch.uint8, device=device) for size in self.sizes]


class Bench:
    """A device, the library of its kernels, and a clock.

    Args:
        dry_run: whether to run the CPU kernels on the CPU.
    """

    def __init__(self, *, dry_run: bool) -> None:
        self.device = "cpu" if dry_run else "cuda"
        self.clock: Any = HostClock() if dry_run else CudaClock()
        with tempfile.TemporaryDirectory() as folder:
            attributes = compile_attributes(Path(folder))
            self.library = AotLibrary(_library_of(self.device), attributes, self.device)
        if dry_run:
            _give_blas(self.library)
        self.generator = torch.Generator(self.device)

    def draw(self, *shape: int, seed: int) -> torch.Tensor:
        """Normal random numbers, float32."""
        self.generator.manual_seed(seed)
        return torch.randn(shape, generator=self.generator, device=self.device)

    def zeros(self, *shape: int) -> torch.Tensor:
        """Zeros, float32."""
        return torch.zeros(shape, device=self.device)

    def number(self, value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A scalar on the device."""
        return torch.tensor(value, dtype=dtype, device=self.device)

    def operator(
        self, name: str, inputs: list[torch.Tensor], outputs: list[torch.Tensor], **attributes: Any
    ) -> Callable[[], None]:
        """Binds a kernel to its arrays.

        Args:
            name: the exported function.
            inputs: its inputs.
            outputs: its outputs.
            **attributes: its attributes.

        Returns:
            A function that launches it on the current stream of torch.
        """
        launch = BoundOperator(self.library, name, [*inputs, *outputs], attributes).bind()
        return lambda: launch(self.stream())

    def stream(self) -> int:
        """Torch's current stream."""
        return 0 if self.device == "cpu" else int(torch.cuda.current_stream().cuda_stream)

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device != "cpu":
            torch.cuda.synchronize()


def _give_blas(library: AotLibrary) -> None:
    # As in ms_kfac.kernels.library, but without MindSpore.
    package = importlib.util.find_spec("scipy_openblas32")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("a dry run needs the package scipy-openblas32")
    blas = next((Path(package.origin).parent / "lib").glob("libscipy_openblas*.so*"))
    library.library.ms_kfac_load_blas(os.fsencode(blas))
    library.library.ms_kfac_set_threads(2)


def _library_of(device: str) -> Path:
    built = KERNELS / f"_{device}.so"
    if not built.is_file():
        raise FileNotFoundError(f"no library of kernels for {device} in {KERNELS}")
    return built
