"""Build the native kernels. All metadata is in pyproject.toml."""

import platform
import runpy
import shutil
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import BaseError, CCompilerError

KERNELS = Path("ms_kfac/kernels")
FOLDERS = (KERNELS / "interface", KERNELS / "cpu")
_fingerprints = runpy.run_path(str(KERNELS / "fingerprint.py"))
digest, STORED = _fingerprints["fingerprint"], _fingerprints["STORED"]
SOURCES = digest(*FOLDERS)
# Symbols of old libraries, so that one wheel runs on all Linux systems.
PORTABLE = platform.machine() in ("x86_64", "aarch64") and platform.libc_ver()[0] == "glibc"
COMPILED_PORTABLY = ["-include", str(KERNELS / "cpu/portable_symbols.h")]
# Older systems have functions in these libraries that newer ones have in libc.so.6.
LINKED_PORTABLY = ["-Wl,--no-as-needed", "-l:libdl.so.2", "-l:libpthread.so.0"]


def files(suffix: str) -> list[str]:
    return sorted(path for folder in FOLDERS for path in glob(f"{folder}/**/*{suffix}", recursive=True))


class BuildPython(build_py):
    """Start from an empty folder: `build/` may hold files that are gone from the sources."""

    def run(self) -> None:
        if not self.editable_mode:
            for package in ("model_zoo", "ms_kfac"):
                shutil.rmtree(Path(self.build_lib, package), ignore_errors=True)
        super().run()
        if not self.editable_mode:
            # The wheel has no kernel sources that a library could be compared with.
            cuda = digest(KERNELS / "interface", KERNELS / "cuda")
            Path(self.build_lib, KERNELS, STORED).write_text(f"cpu {SOURCES}\ncuda {cuda}\n")


class BuildKernels(build_ext):
    """Build a library without Python's version in its name: it uses no function of Python."""

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"

    def build_extension(self, ext: Extension) -> None:
        built = Path(self.get_ext_fullpath(ext.name))
        # Dates of files don't tell that a source was deleted.
        if built.exists() and SOURCES.encode() not in built.read_bytes():
            built.unlink()
        try:
            super().build_extension(ext)
        except (BaseError, CCompilerError):
            built.unlink(missing_ok=True)
            program = self.compiler.compiler_cxx[0]
            state = "failed (see above)" if shutil.which(program) else "is missing"
            print(
                f"ms_kfac: no native CPU kernels, because {program} {state}; "
                "training runs without them, more slowly",
                file=sys.stderr,
            )


class Wheel(bdist_wheel):
    """One wheel for all versions of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(
    cmdclass={"bdist_wheel": Wheel, "build_ext": BuildKernels, "build_py": BuildPython},
    ext_modules=[
        Extension(
            "ms_kfac.kernels._cpu",
            sources=files(".cc"),
            depends=files(".h"),
            define_macros=[("MS_KFAC_SOURCES", f'"{SOURCES}"')],
            language="c++",
            # MindSpore's binaries use the old ABI of std::string.
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                "-g0",
                "-D_GLIBCXX_USE_CXX11_ABI=0",
                "-ffp-contract=fast",
                *(COMPILED_PORTABLY if PORTABLE else []),
            ],
            extra_link_args=LINKED_PORTABLY if PORTABLE else ["-ldl", "-lpthread"],
            # Without a compiler the package still installs. It then uses the fallback (composed of MindSpore
            # operators).
            optional=True,
        )
    ],
)
