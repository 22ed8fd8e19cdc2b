"""Tests which sources a run says that it used."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.gpu.sources import FOLDERS, ROOT, commit, fingerprint


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A small tree with a file per folder."""
    for folder in FOLDERS:
        (tmp_path / folder / "inner").mkdir(parents=True)
        (tmp_path / folder / "inner" / "code.py").write_text(f"# {folder}\n")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_source_changes_the_fingerprint(folder: str, copy: Path) -> None:
    before = fingerprint(copy)
    (copy / folder / "inner" / "code.py").write_text("# another\n")
    assert fingerprint(copy) != before


def test_what_a_run_writes_does_not_change_the_fingerprint(copy: Path) -> None:
    before = fingerprint(copy)
    (copy / "ms_kfac" / "_cuda.so").write_text("built")
    (copy / "ms_kfac" / "__pycache__").mkdir()
    (copy / "ms_kfac" / "__pycache__" / "code.pyc").write_text("compiled")
    assert fingerprint(copy) == before


def test_the_name_of_a_source_is_part_of_the_fingerprint(copy: Path) -> None:
    before = fingerprint(copy)
    (copy / "ms_kfac" / "inner" / "code.py").rename(copy / "ms_kfac" / "inner" / "other.py")
    assert fingerprint(copy) != before


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_commit_of_a_checkout(copy: Path) -> None:
    git(copy, "init", "-q")
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "first")
    head = git(copy, "rev-parse", "HEAD")
    assert commit(copy) == head
    (copy / "ms_kfac" / "inner" / "code.py").write_text("# another\n")
    assert commit(copy) == head + "+"
    # A copy below another checkout has no commit of its own.
    assert commit(copy / "ms_kfac") == ""


def test_no_commit_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(ROOT) == ""
