"""A rank that raises in a loop of one's own ends the others, which wait for it in a collective."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.parallel.launch import ROOT, free_port

pytestmark = pytest.mark.xdist_group("ranks")

# Of importing MindSpore and building the cluster, on a busy machine.
SECONDS = 200
# docs/distributed.md states it: msrun looks at its processes once per second, and ends the others by SIGKILL.
ENDED_WITHIN = 10

LOOP = f"""
import os, sys, time
import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.communication import get_rank, init
import ms_kfac

ms.set_device("CPU")
init()
ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
ms.set_seed(1)
net = nn.SequentialCell(nn.Dense(4, 3))
optimizer = ms_kfac.KFAC(net, 0.1)
cell = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, nn.MSELoss()), optimizer)
print("pid", os.getpid(), flush=True)
for step in range(3):
    if step == 2 and get_rank() == 1:
        print("raised at", time.time(), flush=True)
        raise ValueError("a batch of rank 1 is broken")
    cell(ms.Tensor(np.ones((2, 4), np.float32)), ms.Tensor(np.ones((2, 3), np.float32)))
    print("step", step, float(net[0].weight.asnumpy().sum()), flush=True)
time.sleep({SECONDS})
"""


def is_running(process: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return False


def test_a_rank_that_raises_ends_the_others(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(LOOP)
    msrun = "from mindspore.parallel.cluster.run import main; main()"
    options = ["--worker_num=2", "--local_worker_num=2", f"--master_port={free_port()}", "--join=True"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    launched = subprocess.Popen(
        [sys.executable, "-c", msrun, *options, f"--log_dir={tmp_path}", str(tmp_path / "loop.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    logs = [tmp_path / f"worker_{rank}.log" for rank in range(2)]
    processes: list[int] = []
    try:
        raised = told(logs[1], r"^raised at ([\d.]+)$")
        processes = [int(told(log, r"^pid (\d+)$")) for log in logs]
        while any(is_running(process) for process in processes):
            assert time.time() - raised < ENDED_WITHIN
            time.sleep(0.1)
        assert "ValueError: a batch of rank 1 is broken" in logs[1].read_text()
        assert "step 1" in logs[0].read_text()
    finally:
        for process in (*processes, launched.pid):
            if is_running(process):
                os.killpg(process, signal.SIGKILL)
        launched.wait()


def told(log: Path, pattern: str) -> float:
    """Waits for a line of a log, and returns its number."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace") if log.exists() else ""
        found = re.search(pattern, text, re.MULTILINE)
        if found:
            return float(found[1])
        time.sleep(0.2)
    raise AssertionError(text)
