"""The library of native GPU kernels, built by ``scripts/build_cuda_kernels.sh``."""

from __future__ import annotations

from ms_kfac.kernels.native_library import FOLDER, NativeLibrary
from ms_kfac.kernels.precision import precision

BUILD = "bash scripts/build_cuda_kernels.sh"


class CudaLibrary(NativeLibrary):
    """The library built from ``cuda/``. It contains the CUDA runtime, so it also loads without a GPU."""

    def __init__(self) -> None:
        super().__init__(
            FOLDER / "_cuda.so",
            FOLDER / "cuda",
            not_built=f"not built ({BUILD} does that)",
            rebuild=f"run {BUILD} again",
        )

    def settings(self) -> str:
        """The GPU architectures and the precision of covariance products."""
        architectures = " ".join(f"sm_{number}" for number in self.architectures())
        return f"{architectures}, covariance products in {precision()}"

    def architectures(self) -> list[int]:
        """The GPU architectures with machine code in the library, such as 80 for sm_80."""
        return [int(number) for number in self.text("ms_kfac_cuda_architectures").split()]
