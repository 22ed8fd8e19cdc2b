"""Which sources a run used: the commit, and a fingerprint that needs no git.

    python -m benchmarks.gpu.sources

prints both. So the commit of a run without git is the one whose checkout has the same fingerprint.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Everything that a run executes.
FOLDERS = ("benchmarks", "ms_kfac", "model_zoo", "scripts", "tests")
SUFFIXES = (".cc", ".cu", ".cuh", ".h", ".py", ".sh")


def fingerprint(root: Path = ROOT) -> str:
    """A digest of the sources in ``FOLDERS``, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for path in sorted(path for path in (root / folder).rglob("*") if path.suffix in SUFFIXES):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def commit(root: Path = ROOT) -> str:
    """The checked-out commit, with "+" if files differ from it; empty without git or outside a checkout."""
    if shutil.which("git") is None:
        return ""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    # A plain copy inside another project's checkout must not report that project's commit.
    top = git("rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root.resolve():
        return ""
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("+" if changed else "")


if __name__ == "__main__":
    print(f"commit: {commit() or 'unknown'}\nsources: {fingerprint()}")
