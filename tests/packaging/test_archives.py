"""What the wheel and the source distribution hold, also after earlier builds in the same folder.

A stand-in for g++ keeps this short: its libraries hold the arguments that it got.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.model_zoo.synthetic_data import write_mnist
from tests.support.traps import set_traps

ROOT = Path(__file__).resolve().parents[2]
KERNELS = "ms_kfac/kernels"
GENERATED = ("PKG-INFO", "setup.cfg", "ms_kfac.egg-info/")
COMPILER = """#!/bin/sh
for last; do
    case "$before" in
        -o) output="$last" ;;
        -c) cp "$last" "$0.part" ;;
    esac
    case "$last" in
        *.o) [ ! -f "$last" ] || cat "$last" >>"$0.part" ;;
        -DMS_KFAC_SOURCES=*) defined="$last" ;;
    esac
    before="$last"
done
{ cat "$0.part"; echo "$defined"; } >"$output"
rm "$0.part"
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("archives")]


def tracked() -> list[str]:
    """The files of the repository, those included that are about to be added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a clone")
    return sorted(name for name in listed.stdout.splitlines() if (ROOT / name).is_file())


def build(project: Path, *commands: str, compiler: str | None = None) -> subprocess.CompletedProcess[str]:
    compiler = compiler or str(project.parent / "g++")
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", *commands],
        cwd=project,
        env={**os.environ, "CC": compiler, "CXX": compiler, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def contents_of_wheel(project: Path) -> dict[str, bytes]:
    """The wheel's files, without its metadata."""
    (path,) = (project / "dist").glob("*.whl")
    assert path.name.startswith("ms_kfac-0.1.0-py3-none-linux_")
    with zipfile.ZipFile(path) as archive:
        return {
            name: archive.read(name)
            for name in archive.namelist()
            if not name.endswith("/") and ".dist-info/" not in name
        }


def digest_of(project: Path, device: str) -> str:
    program = (
        "import pathlib, runpy, sys; "
        "print(runpy.run_path('fingerprint.py')['fingerprint'](*map(pathlib.Path, sys.argv[1:])))"
    )
    command = [sys.executable, "-I", "-c", program, "interface", device]
    return subprocess.run(
        command, cwd=project / KERNELS, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, in which the archives were built among leftovers of other programs."""
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools 77")
    folder = tmp_path_factory.mktemp("archives")
    (folder / "g++").write_text(COMPILER)
    (folder / "g++").chmod(0o755)
    for name in tracked():
        (folder / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "clone" / name)
    leftovers = (
        "ms_kfac/__pycache__/values.pyc",
        f"{KERNELS}/cpu/library.cc~",
        f"{KERNELS}/_cpu.cpython-311.so",
        "runs/1/run.json",
    )
    for name in leftovers:
        (folder / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "clone" / name).write_text("left over")
    build(folder / "clone", "sdist", "bdist_wheel")
    return folder / "clone"


@pytest.fixture
def project(clone: Path, tmp_path: Path) -> Path:
    """The copy with its builds, to be changed by one test."""
    shutil.copytree(clone, tmp_path / "clone", symlinks=True)
    shutil.copy2(clone.parent / "g++", tmp_path / "g++")
    shutil.rmtree(tmp_path / "clone/dist")
    return tmp_path / "clone"


def test_the_source_distribution_is_the_repository(clone: Path) -> None:
    (path,) = (clone / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    held = {name for name in names if not name.startswith(GENERATED)}
    assert held == set(tracked())
    assert {"CHANGELOG.md", "scripts/build_cuda_kernels.sh", f"{KERNELS}/cuda/tile/tile.h"} < held


def test_the_wheel_is_the_package_its_library_and_the_zoo(clone: Path) -> None:
    folders, suffixes = ("ms_kfac/", "model_zoo/"), (".py", ".yaml")
    sources = {name for name in tracked() if name.startswith(folders) and name.endswith(suffixes)}
    assert {"model_zoo/train.py", "model_zoo/resnet/tkfac/resnet20w4_cifar10_adam.yaml"} < sources
    found = contents_of_wheel(clone)
    assert set(found) == sources | {
        "ms_kfac/py.typed",
        f"{KERNELS}/_cpu.so",
        f"{KERNELS}/_fingerprints.txt",
    }
    cpu, cuda = digest_of(clone, "cpu"), digest_of(clone, "cuda")
    assert found[f"{KERNELS}/_fingerprints.txt"].decode() == f"cpu {cpu}\ncuda {cuda}\n"
    library = found[f"{KERNELS}/_cpu.so"]
    assert f'-DMS_KFAC_SOURCES="{cpu}"'.encode() in library
    assert b"NotFiniteKind not_finite(" in library


def test_a_deleted_file_does_not_come_back_from_an_old_build(project: Path) -> None:
    (project / KERNELS / "cpu/step/not_finite.cc").unlink()
    (project / KERNELS / "cpu/step/not_finite.h").unlink()
    (project / "ms_kfac/values.py").unlink()
    (project / "model_zoo/mlp/mlp_mnist14_adam.yaml").unlink()
    build(project, "bdist_wheel")
    found = contents_of_wheel(project)
    assert "ms_kfac/values.py" not in found
    assert "model_zoo/mlp/mlp_mnist14_adam.yaml" not in found
    library = found[f"{KERNELS}/_cpu.so"]
    assert digest_of(project, "cpu").encode() in library
    assert b"NotFiniteKind not_finite(" not in library


def test_a_library_in_place_is_compiled_anew_if_a_file_was_deleted(project: Path) -> None:
    library = project / KERNELS / "_cpu.so"
    for name in (None, "cpu/step/not_finite.h"):
        if name:
            (project / KERNELS / name).unlink()
        build(project, "build_ext", "--inplace")
        assert digest_of(project, "cpu").encode() in library.read_bytes()


def test_an_unchanged_library_is_not_compiled_again(project: Path) -> None:
    build(project, "build_ext", "--inplace")
    build(project, "build_ext", "--inplace", compiler="/bin/false")
    assert (project / KERNELS / "_cpu.so").exists()


@pytest.mark.parametrize(
    ("compiler", "state"), [("/bin/false", "failed (see above)"), ("/nonexistent/g++", "is missing")]
)
def test_without_a_compiler_one_line_says_so_and_no_old_library_stays(
    project: Path, compiler: str, state: str
) -> None:
    (project / KERNELS / "cpu/step/not_finite.h").unlink()
    done = build(project, "bdist_wheel", compiler=compiler)
    assert f"{KERNELS}/_cpu.so" not in contents_of_wheel(project)
    assert [line for line in done.stderr.splitlines() if "kernels" in line] == [
        f"ms_kfac: no native CPU kernels, because {compiler} {state}; training runs without them, more slowly"
    ]
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def environment(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, and the other packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = (clone / "dist").glob("*.whl")
    install = ["-m", "pip", "--python", str(folder / "bin/python"), "install", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-I", *install, "--quiet", str(wheel)], check=True)
    return folder / "bin"


def test_the_installed_zoo_trains_evaluates_and_plots_in_any_folder(
    environment: Path, tmp_path: Path
) -> None:
    data = write_mnist(tmp_path / "idx")
    (tmp_path / "trapped").mkdir()
    set_traps(tmp_path / "trapped", tmp_path / "sprung")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MS_KFAC"))}

    def zoo(*arguments: str) -> str:
        done = subprocess.run(
            [str(environment / "ms-kfac-zoo"), *arguments],
            cwd=tmp_path / "trapped",
            # The library of the stand-in for g++ can't be loaded.
            env={**kept, "MS_KFAC_NATIVE": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    names = {f"model_zoo/{name}.yaml" for name in zoo("recipes").splitlines()}
    assert names == {name for name in tracked() if name.startswith("model_zoo/") and name.endswith(".yaml")}
    output = tmp_path / "out"
    options = ["--data-dir", str(data), "--set", "data.batch_size=10", "--set", "epochs=1"]
    zoo("train", "--recipe", "mlp/mlp_mnist14_kfac", "--compare", "kfac", "--output", str(output), *options)
    assert "test accuracy" in zoo("eval", "--checkpoint", str(output / "kfac"), "--data-dir", str(data))
    zoo("plot", str(output / "kfac"), "--output", str(tmp_path / "curves.svg"))
    assert (tmp_path / "curves.svg").exists()
    assert not (tmp_path / "sprung").exists()
