"""scripts/prepare_data.sh on synthetic archives, with stand-ins for the download and MD5 programs."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MNIST_SUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
CIFAR100_SUM = "03b5dce01913d631647c71ecec9e9cb8"
CIFAR100_SIZES = {"train.bin": 153_700_000, "test.bin": 30_740_000}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs at the front of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def write_program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def prepare(tmp_path: Path, programs: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "scripts/prepare_data.sh"), *map(str, arguments)],
        cwd=tmp_path,
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def write_mnist_archives(folder: Path) -> None:
    folder.mkdir()
    for name, total in MNIST_SUMS.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(total.encode()))


def test_mnist_is_unpacked_once_and_held_to_its_sums(tmp_path: Path, programs: Path) -> None:
    write_mnist_archives(tmp_path / "packed")
    # The synthetic files contain the MD5 sums of the real ones.
    write_program(programs, "md5sum", "cat; echo '  -'")
    done = prepare(tmp_path, programs, "mnist", "--archives", "packed", "--output", "out")
    assert (done.returncode, done.stdout) == (0, "MNIST is in out/mnist\n"), done.stderr
    unpacked = {path.name: path.read_text() for path in (tmp_path / "out/mnist").iterdir()}
    assert unpacked == MNIST_SUMS

    again = prepare(tmp_path, programs, "mnist", "--archives", "gone", "--output", "out")
    assert again.returncode == 0, again.stderr
    (tmp_path / "out/mnist/t10k-labels-idx1-ubyte").write_text("damaged")
    damaged = prepare(tmp_path, programs, "mnist", "--archives", "packed", "--output", "out")
    assert damaged.returncode == 1
    assert "t10k-labels-idx1-ubyte is not the published file: its MD5 sum is damaged," in damaged.stderr


def test_nothing_is_downloaded_without_the_option(tmp_path: Path, programs: Path) -> None:
    write_mnist_archives(tmp_path / "server")
    write_program(programs, "md5sum", "cat; echo '  -'")
    write_program(programs, "curl", f'echo "$@" >>{tmp_path}/calls; cp "{tmp_path}/server/${{7##*/}}" "$6"')
    refused = prepare(tmp_path, programs, "mnist", "--archives", "packed")
    assert refused.returncode == 1
    assert (
        "packed/train-images-idx3-ubyte.gz is missing; add --download to fetch it from https://"
        in refused.stderr
    )
    assert not (tmp_path / "calls").exists()

    done = prepare(tmp_path, programs, "mnist", "--archives", "packed", "--download")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text().count("https://") == 4
    assert {path.name for path in (tmp_path / "packed").iterdir()} == {f"{name}.gz" for name in MNIST_SUMS}
    assert {path.name for path in (tmp_path / "data/mnist").iterdir()} == set(MNIST_SUMS)


def test_an_archive_with_another_sum_is_not_unpacked(tmp_path: Path, programs: Path) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/cifar-10-binary.tar.gz").write_bytes(b"something else")
    done = prepare(tmp_path, programs, "cifar10", "--archives", "packed", "--output", "out")
    assert done.returncode == 1
    # The MD5 sum of these bytes.
    assert "its MD5 sum is 6c7ba9c5a141421e1c03cb9807c97c74, expected c32a1d4a" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut_off", [False, True])
def test_cifar100_is_unpacked_and_held_to_its_sizes(tmp_path: Path, programs: Path, cut_off: bool) -> None:
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed/cifar-100-binary.tar.gz", "w:gz") as archive:
        for name, size in CIFAR100_SIZES.items():
            content = str(size - (cut_off and name == "test.bin")).encode()
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    write_program(programs, "md5sum", f"cat >/dev/null; echo '{CIFAR100_SUM}  -'")
    # The size of a synthetic file is the number written in it.
    write_program(programs, "wc", "cat")
    done = prepare(tmp_path, programs, "cifar100", "--archives", "packed", "--output", "out")
    if cut_off:
        assert done.returncode == 1
        expected = "out/cifar-100-binary/test.bin is missing from the archive, or does not have 30740000"
        assert expected in done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, "CIFAR-100 is in out/cifar-100-binary\n"), done.stderr
        (tmp_path / "packed/cifar-100-binary.tar.gz").unlink()
        assert prepare(tmp_path, programs, "cifar100", "--output", "out").returncode == 0
