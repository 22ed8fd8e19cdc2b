"""Calls operators of a Custom AOT library through ctypes, without MindSpore.

The arrays of a call are its inputs, followed by its outputs, in NumPy. For a GPU they are copied to PyTorch
tensors and back. Workspaces have the sizes that the operator declares when it is created. They are filled
with NaN and surrounded by guard bytes, which a call must not change.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
# Guard bytes on each side of a workspace; a multiple of CUDA's allocation alignment.
GUARD = 256
GUARD_VALUE = 0xA5


class AotError(RuntimeError):
    """An operator reported an error."""


def compile_attributes(folder: Path) -> Path:
    """Compiles the library that passes attributes to operators."""
    built = folder / "aot_extra.so"
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-D_GLIBCXX_USE_CXX11_ABI=0"]
    subprocess.run([*command, str(Path(__file__).with_name("aot_extra.cc")), "-o", str(built)], check=True)
    return built


class AotLibrary:
    """A library of Custom AOT operators.

    Args:
        path: the path of the library.
        attributes: the result of :func:`compile_attributes`.
        device: the device of the arrays, "cpu" or "cuda".

    Attributes:
        offset: the distance of arrays in a call from an aligned address, in bytes. With 0 their addresses
            are those of the given arrays on a CPU, and aligned ones on a GPU.
    """

    def __init__(self, path: Path, attributes: Path, device: str = "cpu") -> None:
        self.device = device
        self.offset = 0
        self.library = ctypes.CDLL(str(path))
        self.extra = ctypes.CDLL(str(attributes))
        self.extra.extra_new.restype = ctypes.c_void_p
        self.extra.extra_workspace.restype = ctypes.c_int64

    def last_error(self) -> str:
        """The message of the last error of an operator."""
        buffer = ctypes.create_string_buffer(self.library.ms_kfac_last_error(None, 0) + 1)
        self.library.ms_kfac_last_error(buffer, len(buffer))
        return buffer.value.decode()

    def operator(
        self, name: str, inputs: Sequence[Any], outputs: Sequence[Any], **attributes: Any
    ) -> AotOperator:
        """Creates an operator for the given arrays; raises AotError if it does not accept them."""
        return AotOperator(self, name, [*inputs, *outputs], attributes)


class AotOperator:
    """An operator, created for the shapes and types of its arrays; run() may be called repeatedly."""

    def __init__(
        self, library: AotLibrary, name: str, arrays: Sequence[Any], attributes: dict[str, Any]
    ) -> None:
        self.library, self.name = library, name
        self.function = getattr(library.library, name)
        create = getattr(library.library, f"{name}Init")
        self.extra = ctypes.c_void_p(library.extra.extra_new())
        for key, value in attributes.items():
            self._set(key, value)
        self.arrays = list(arrays)
        axes, shapes, types = self._describe(self.arrays)
        if create(axes, shapes, types, self.extra) != 0:
            raise AotError(library.last_error())
        count = library.extra.extra_workspaces(self.extra)
        self.sizes = [library.extra.extra_workspace(self.extra, index) for index in range(count)]
        self.workspaces = self._make_workspaces()

    def _make_workspaces(self) -> list[Any]:
        workspaces: list[Any] = [np.full(size + 2 * GUARD, GUARD_VALUE, np.uint8) for size in self.sizes]
        for workspace, size in zip(workspaces, self.sizes):
            workspace[GUARD : GUARD + size] = 0xFF
        if self.library.device == "cuda":
            import torch

            # Created once: as in MindSpore, addresses stay, but the content is undefined.
            workspaces = [torch.from_numpy(workspace).cuda() for workspace in workspaces]
        return workspaces

    def run(self) -> None:
        """Runs the operator and waits for it; raises AotError with its message if it fails."""
        if self.library.device == "cpu":
            arrays = [self._placed(array) for array in self.arrays]
            self.submit(arrays, 0)
            for array, placed in zip(self.arrays, arrays):
                if placed is not array:
                    array[...] = placed
        else:
            import torch

            # Not the default stream, so that work wrongly submitted there causes errors.
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                tensors = [self._tensor(array) for array in self.arrays]
                self.submit(tensors, stream.cuda_stream)
            stream.synchronize()
            for array, tensor in zip(self.arrays, tensors):
                array[...] = tensor.cpu().numpy().reshape(array.shape)
        for workspace, size in zip(self.workspaces, self.sizes):
            bytes_ = workspace if isinstance(workspace, np.ndarray) else workspace.cpu().numpy()
            guards = np.concatenate([bytes_[:GUARD], bytes_[GUARD + size :]])
            assert (guards == GUARD_VALUE).all(), f"{self.name} wrote beyond its workspace"

    def _placed(self, array: np.ndarray) -> np.ndarray:
        """The array, or with an offset a copy that is so far from an aligned address."""
        if self.library.offset == 0:
            return array
        memory = np.empty(array.nbytes + self.library.offset + 16, np.uint8)
        first = -memory.ctypes.data % 16 + self.library.offset
        placed = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
        placed[...] = array
        return placed

    def _tensor(self, array: np.ndarray) -> Any:
        """A copy on the GPU, at the library's offset from an aligned address."""
        import torch

        skipped = self.library.offset // array.itemsize
        # PyTorch aligns what it allocates to 512 bytes.
        memory = torch.empty(
            skipped + array.size, dtype=torch.from_numpy(np.empty(0, array.dtype)).dtype, device="cuda"
        )
        tensor = memory[skipped:].reshape(array.shape)
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(array)))
        return tensor

    def submit(self, arrays: Sequence[Any], stream: int) -> None:
        """Calls the operator with arrays of its device, on a stream, and does not wait for it."""
        axes, shapes, types = self._describe(self.arrays)
        pointers = [_pointer(array) for array in arrays]
        pointers += [_pointer(workspace) + GUARD for workspace in self.workspaces]
        data = (ctypes.c_void_p * len(pointers))(*pointers)
        code = self.function(
            len(pointers), data, axes, shapes, types, ctypes.c_void_p(stream or None), self.extra
        )
        if code != 0:
            raise AotError(self.library.last_error())

    def _describe(self, arrays: Sequence[Any]) -> tuple[Any, Any, Any]:
        count = len(arrays)
        self._shapes = [(ctypes.c_int64 * max(1, len(a.shape)))(*a.shape) for a in arrays]
        axes = (ctypes.c_int * count)(*[len(a.shape) for a in arrays])
        shapes = (ctypes.c_void_p * count)(*[ctypes.addressof(s) for s in self._shapes])
        types = (ctypes.c_char_p * count)(*[str(a.dtype).replace("torch.", "").encode() for a in arrays])
        return axes, shapes, types

    def _set(self, key: str, value: Any) -> None:
        name = key.encode()
        values = value if isinstance(value, (list, tuple)) else [value]
        if isinstance(value, str):
            self.library.extra.extra_text(self.extra, name, value.encode())
        elif any(isinstance(one, float) for one in values):
            self.library.extra.extra_floats(
                self.extra, name, (ctypes.c_float * len(values))(*values), len(values)
            )
        else:
            numbers = (ctypes.c_int64 * len(values))(*map(int, values))
            self.library.extra.extra_integers(self.extra, name, numbers, len(values))

    def __del__(self) -> None:
        """Frees the attributes of the operator."""
        if getattr(self, "extra", None):
            self.library.extra.extra_delete(self.extra)
            self.extra = None


def _pointer(array: Any) -> int:
    if hasattr(array, "data_ptr"):
        return int(array.data_ptr())
    assert array.flags["C_CONTIGUOUS"], "operators need contiguous arrays"
    return int(array.ctypes.data)
