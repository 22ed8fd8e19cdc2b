"""Signals where several processes train: launchers, comparisons, ranks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from model_zoo.common.checkpoint import writer
from model_zoo.common.checkpoint.writer import StopOnSignal
from model_zoo.common.command_line import run_command
from model_zoo.common.comparison import run_each
from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import Interrupted
from model_zoo.common.interruption import StopSignals
from model_zoo.common.run_options import RunOptions
from tests.model_zoo.synthetic_data import ROOT
from tests.support.signals import send

MLP = ROOT / "model_zoo/mlp/mlp_mnist14_sgdm.yaml"


@pytest.mark.parametrize(("first", "status"), [("another process", None), ("the same", 130)])
def test_a_launcher_may_pass_on_what_both_have_received(first: str, status: int | None) -> None:
    code = (
        "import time; from model_zoo.common.interruption import StopSignals\n"
        "with StopSignals() as signals, signals.deferred():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        if first == "the same":
            process.send_signal(signal.SIGINT)
        else:
            # From a terminal, it comes from no process.
            subprocess.run([sys.executable, "-c", f"import os; os.kill({process.pid}, 2)"], check=True)
        assert (
            process.stderr.readline() == "SIGINT: stopping after this step; a second signal stops at once\n"
        )
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() == status
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == (status or 143)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_comparison_ends_its_run_with_it(
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only the comparison gets the signal; the run, here a script, may write a checkpoint."""
    run = tmp_path / "run"
    run.write_text(
        f"#!{sys.executable}\n"
        f"import os, pathlib, signal, time\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        f"number = signal.sigtimedwait([2, 15], 60).si_signo\n"
        f"time.sleep(0.5)\n"
        f"pathlib.Path({str(tmp_path / 'stopped')!r}).write_text(str(number))\n"
    )
    run.chmod(0o755)

    def command(signals: StopSignals) -> int:
        def send_when_started() -> None:
            while not (tmp_path / "pid").exists():
                time.sleep(0.05)
            send(number)

        threading.Thread(target=send_when_started).start()
        return run_each({"sgdm": MLP, "kfac": MLP}, tmp_path / "out", [])

    monkeypatch.setattr(sys, "executable", str(run))
    assert run_command(command) == 128 + number
    assert (tmp_path / "stopped").read_text() == str(int(number))
    assert capsys.readouterr().err == f"error: stopped by {number.name}.\n"


def test_ranks_stop_at_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank alone gets the signal, between two logged steps; the other is at another step then."""
    barrier, values, log = threading.Barrier(2, timeout=30), [[0.0], [0.0]], []

    def sum_over_ranks(own: list[float], shard: Shard) -> list[float]:
        values[shard.rank] = own
        barrier.wait()
        total = [sum(column) for column in zip(*values)]
        barrier.wait()
        return total

    def train_rank(rank: int) -> str:
        options = RunOptions("run", None, tmp_path, log_every=4, shard=Shard(rank, 2))
        signals, run, writes = StopSignals(), MagicMock(), MagicMock()
        writes.write.side_effect = lambda parameters: log.append(parameters.cur_step_num)
        stop = StopOnSignal(signals, options, writes)
        run.original_args.return_value.batch_num = 10
        for step in range(1, 30):
            run.original_args.return_value.cur_step_num = step
            if (rank, step) == (1, 5):
                signals.received = signal.SIGTERM
            try:
                stop.on_train_step_end(run)
                if step % 10 == 0:
                    stop.on_train_epoch_end(run)
            except Interrupted as error:
                return str(error)
        return "not stopped"

    monkeypatch.setattr(writer, "sum_over_ranks", sum_over_ranks)
    monkeypatch.setattr(writer, "_SECONDS_AFTER_RANK_0", 0)
    with ThreadPoolExecutor(2) as threads:
        told = list(threads.map(train_rank, range(2)))
    assert all(text.startswith("stopped by SIGTERM after step 8: ") for text in told), told
    assert log == [8, 8]
