"""Starts ranks with msrun and reads what they wrote."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
# Of one launch; a rank ends itself after that time. Many times what a launch takes on two processors.
SECONDS = 600


@dataclass(frozen=True)
class Rank:
    """What a rank had in the end of a case.

    Attributes:
        weights: by name.
        state: of the optimizer, by name.
        equal: the state when ranks had made theirs equal; empty where they have not.
        shown: what the optimizer said of itself.
    """

    weights: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    equal: dict[str, np.ndarray]
    shown: dict[str, Any]


def free_port() -> int:
    """A port that no program listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(size: int, cases: Sequence[str], folder: Path) -> dict[str, list[Rank]]:
    """Trains cases on a number of ranks.

    Args:
        size: number of ranks.
        cases: their names in `tests.parallel.cases`.
        folder: for files and logs.

    Returns:
        Of every case what each rank had in the end.

    Raises:
        AssertionError: if a rank failed or did not end in time.
    """
    msrun = "import sys; from mindspore.parallel.cluster.run import main; sys.exit(main())"
    ranks = [f"--worker_num={size}", f"--local_worker_num={size}", f"--master_port={free_port()}"]
    options = [*ranks, f"--log_dir={folder}", "--join=True", f"--cluster_time_out={SECONDS}"]
    worker = [str(Path(__file__).with_name("worker.py")), str(folder), str(SECONDS), *cases]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", msrun, *options, *worker],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(SECONDS + 30)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = {name: [_read(folder, name, rank) for rank in range(size)] for name in cases}
    logs = "\n".join(log.read_text(errors="replace")[-3000:] for log in sorted(folder.glob("worker_*.log")))
    assert all(rank is not None for ranks in found.values() for rank in ranks), logs
    return {name: [rank for rank in ranks if rank is not None] for name, ranks in found.items()}


def _read(folder: Path, name: str, rank: int) -> Rank | None:
    shown = folder / f"{name}.{rank}.json"
    if not shown.exists():
        return None
    arrays: dict[str, dict[str, np.ndarray]] = {"weights": {}, "state": {}, "equal": {}}
    with np.load(folder / f"{name}.{rank}.npz") as file:
        for key in file:
            kind, own = key.split(" ", 1)
            arrays[kind][own] = file[key]
    return Rank(**arrays, shown=json.loads(shown.read_text()))
