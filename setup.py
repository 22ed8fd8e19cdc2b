"""Build entry: the native kernels; all the metadata is in pyproject.toml."""

import runpy
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

KERNELS = "ms_kfac/kernels/cpu"
FINGERPRINT = runpy.run_path("ms_kfac/kernels/fingerprint.py")["fingerprint"](Path(KERNELS))

setup(
    ext_modules=[
        Extension(
            "ms_kfac.kernels._cpu",
            sources=sorted(glob(f"{KERNELS}/**/*.cc", recursive=True)),
            depends=sorted(glob(f"{KERNELS}/**/*.h", recursive=True)),
            define_macros=[("MS_KFAC_SOURCES", f'"{FINGERPRINT}"')],
            language="c++",
            # MindSpore's binaries pass std::string in the older form. Symbols but the operators' stay inside.
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                "-g0",
                "-D_GLIBCXX_USE_CXX11_ABI=0",
                "-ffp-contract=fast",
            ],
            extra_link_args=["-ldl", "-lpthread"],
            # Without a compiler the package installs all the same, and runs on composed operators.
            optional=True,
        )
    ]
)
