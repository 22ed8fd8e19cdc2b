"""Build the native kernels. All metadata is in pyproject.toml."""

import runpy
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

FOLDERS = ("ms_kfac/kernels/interface", "ms_kfac/kernels/cpu")
FINGERPRINT = runpy.run_path("ms_kfac/kernels/fingerprint.py")["fingerprint"](*map(Path, FOLDERS))


def files(suffix: str) -> list[str]:
    return sorted(path for folder in FOLDERS for path in glob(f"{folder}/**/*{suffix}", recursive=True))


setup(
    ext_modules=[
        Extension(
            "ms_kfac.kernels._cpu",
            sources=files(".cc"),
            depends=files(".h"),
            define_macros=[("MS_KFAC_SOURCES", f'"{FINGERPRINT}"')],
            language="c++",
            # MindSpore's binaries use the old ABI of std::string.
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                "-g0",
                "-D_GLIBCXX_USE_CXX11_ABI=0",
                "-ffp-contract=fast",
            ],
            extra_link_args=["-ldl", "-lpthread"],
            # Without a compiler the package still installs. It then uses the fallback (composed of MindSpore
            # operators).
            optional=True,
        )
    ]
)
