"""The library of the GPU's kernels, which ``scripts/build_cuda_kernels.sh`` builds."""

from __future__ import annotations

from ms_kfac.kernels.native_library import FOLDER, NativeLibrary
from ms_kfac.kernels.precision import precision

BUILD = "bash scripts/build_cuda_kernels.sh"


class CudaLibrary(NativeLibrary):
    """The library of ``cuda/``. It holds CUDA's runtime, so it loads on machines without a GPU, too."""

    def __init__(self) -> None:
        super().__init__(
            FOLDER / "_cuda.so",
            FOLDER / "cuda",
            not_built=f"not built ({BUILD} does that)",
            rebuild=f"run {BUILD} again",
        )

    def settings(self) -> str:
        """The architectures and the precision."""
        architectures = " ".join(f"sm_{number}" for number in self.architectures())
        return f"{architectures}, covariance products in {precision()}"

    def architectures(self) -> list[int]:
        """The architectures that it has machine code for, such as 80 for sm_80."""
        return [int(number) for number in self.text("ms_kfac_cuda_architectures").split()]
