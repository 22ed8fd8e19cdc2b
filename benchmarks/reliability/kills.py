"""Kills training at random moments and during checkpoints, and resumes it until it ends.

The runs must end with the same weights and state as an uninterrupted run, bit for bit.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.reliability.tally import Tally
from model_zoo.common.checkpoint.files import STATE_FILE, checkpoints_folder, newest_checkpoint, steps_in
from model_zoo.common.data.shards import Shard

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "model_zoo" / "vit" / "vit_digits_kfac.yaml"
SMALL = ("network.depth=1", "network.width=16", "network.heads=2", "network.patch=16", "epochs=2")
RANDOM, CHECKPOINT = "at a random moment", "during a checkpoint"


class Training:
    """Starts, kills and resumes the runs of one folder.

    Args:
        folder: the run's folder.
        log: file for the output of the processes.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder = folder
        self.log = log

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts ``python -m model_zoo.train``."""
        command = [sys.executable, "-m", "model_zoo.train", "--no-progress", *arguments]
        with self.log.open("wb") as file:
            return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)

    def first(self) -> subprocess.Popen[bytes]:
        """Starts the run from the beginning."""
        settings = [part for text in SMALL for part in ("--set", text)]
        return self.start(
            "--recipe", str(RECIPE), *settings, "--output", str(self.folder), "--checkpoint-every", "2steps"
        )

    def again(self) -> subprocess.Popen[bytes]:
        """Resumes the run if it has a checkpoint, else starts it once more."""
        if steps_in(checkpoints_folder(self.folder, Shard())):
            return self.start("--resume", str(self.folder))
        return self.first()

    def last_line(self) -> str:
        """The last line of the output of the last process."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def state(self) -> bytes:
        """The file with every Parameter at the end of the run."""
        return (newest_checkpoint(self.folder, Shard()) / STATE_FILE).read_bytes()


def kill_at(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Kills a process after some seconds.

    Returns:
        Whether it was killed; False if it had ended.
    """
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() == -9


def _unfinished(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("unfinished_*") if path.name[len("unfinished_") :].isdigit()}


def kill_in_checkpoint(process: subprocess.Popen[bytes], folder: Path, which: int) -> bool:
    """Kills a process while it writes its n-th checkpoint.

    Args:
        process: the process.
        folder: where it writes checkpoints.
        which: the n.

    Returns:
        Whether it was killed; False if it had ended.
    """
    # A killed process leaves its unfinished checkpoint behind.
    left = _unfinished(folder)
    seen: set[str] = set()
    while process.poll() is None:
        seen |= _unfinished(folder) - left
        if len(seen) >= which:
            process.kill()
        time.sleep(0.0005)
    return process.wait() == -9


def kills(count: int, folder: Path, seed: int = 1) -> list[Tally]:
    """Kills and resumes runs until so many kills were made.

    A run that ends is compared with the uninterrupted one, and the next run begins.

    Args:
        count: how many kills.
        folder: an empty folder for the runs.
        seed: of the moments.

    Returns:
        One line for random moments, one for kills during checkpoints.

    Raises:
        RuntimeError: a run failed that was not killed.
    """
    moments = random.Random(seed)
    whole = Training(folder / "whole", folder / "whole.txt")
    begun = time.monotonic()
    if whole.first().wait():
        raise RuntimeError(f"the uninterrupted run failed: {whole.last_line()}")
    duration, expected = time.monotonic() - begun, whole.state()
    tried, held = {RANDOM: 0, CHECKPOINT: 0}, {RANDOM: 0, CHECKPOINT: 0}
    failures: dict[str, list[str]] = {RANDOM: [], CHECKPOINT: []}
    number = 0
    while sum(tried.values()) < count:
        number += 1
        run = Training(folder / f"killed_{number}", folder / "killed.txt")
        made: list[str] = []
        process = run.first()
        while True:
            kind = moments.choice((RANDOM, CHECKPOINT))
            if sum(tried.values()) >= count:
                killed = False
            elif kind == RANDOM:
                killed = kill_at(process, moments.uniform(0.1, 1.0) * duration)
            else:
                killed = kill_in_checkpoint(
                    process, checkpoints_folder(run.folder, Shard()), moments.randint(1, 4)
                )
            if not killed:
                break
            tried[kind] += 1
            made.append(kind)
            process = run.again()
        problem = ""
        if process.wait() and not made:
            raise RuntimeError(f"a run failed before it was killed: {run.last_line()}")
        if process.returncode:
            problem = f"exit status {process.returncode} after a kill: {run.last_line()}"
        elif run.state() != expected:
            problem = "the resumed run differs from the uninterrupted one"
        if problem:
            # The kill before it is to blame.
            failures[made[-1] if made else RANDOM].append(problem)
            made = made[:-1]
        for kind in made:
            held[kind] += 1
        shutil.rmtree(run.folder)
    return [
        Tally(f"kill {kind}, then resume", tried[kind], held[kind], failures=failures[kind]) for kind in tried
    ]
