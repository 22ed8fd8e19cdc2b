"""Build entry: the native kernels; all the metadata is in pyproject.toml."""

from glob import glob

from setuptools import Extension, setup

KERNELS = "ms_kfac/kernels/cpu"

setup(
    ext_modules=[
        Extension(
            "ms_kfac.kernels._cpu",
            sources=sorted(glob(f"{KERNELS}/**/*.cc", recursive=True)),
            depends=sorted(glob(f"{KERNELS}/**/*.h", recursive=True)),
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
