r"""Measures the bytes that K-FAC's collectives send on a CPU, against `optimizer.traffic()`.

    python -m benchmarks.traffic --worker-num 2
    python -m benchmarks.traffic --worker-num 4

Starts ranks with msrun on this machine. Each rank reads the counters of its TCP connections before and after
every step (`benchmarks.tcp_counters`). So other programs, packet headers and start-up traffic do not count.
Before each reading, an all-reduce of one number makes sure that all ranks have finished the step. Its own
traffic is measured first and subtracted.

The network has four dense layers of 80 inputs and 80 outputs, so that each of 4 ranks owns one layer and the
exchange is an all-gather. Factors are computed every 2nd step and inverses every 4th.

MindSpore's collectives on a CPU are rings. A rank receives a message on the connection that its neighbour
opened, and sends almost all of it back as confirmation; "answered" counts these bytes. A ring of R ranks
sends :math:`2 (R - 1) / R` times the vector of an all-reduce and :math:`R - 1` times its own part of an
all-gather (Patarasuk & Yuan 2009). "sent" is compared with these values.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# The time limit of the ranks.
SECONDS = 400
FACTOR_INTERVAL, INVERSE_INTERVAL = 2, 4
STEPS = 3 * INVERSE_INTERVAL
BATCH = 16
LAYERS, WIDTH = 4, 80
PLAIN, WITH_STATISTICS, AT_REFRESH = "plain", "with statistics", "refresh"


def kind_of(step: int) -> str:
    """The kind of a step."""
    if step % INVERSE_INTERVAL == 0:
        return AT_REFRESH
    return WITH_STATISTICS if step % FACTOR_INTERVAL == 0 else PLAIN


def measure(exchange: str) -> list[dict[str, Any]]:
    """Trains on this rank and reads its byte counters.

    Args:
        exchange: the option of ms_kfac.parallel.Distribution.

    Returns:
        Per kind of step, the mean bytes sent and answered, and the expected bytes.
    """
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor, nn, ops
    from mindspore.communication import get_rank

    import ms_kfac
    from benchmarks.tcp_counters import ByteCounts, read_byte_counts

    ms.set_seed(1)
    layers = [cell for _ in range(LAYERS) for cell in (nn.Dense(WIDTH, WIDTH), nn.Tanh())]
    network = nn.SequentialCell(*layers[:-1])
    optimizer = ms_kfac.KFAC(
        network,
        0.01,
        factor_interval=ms_kfac.FixedInterval(FACTOR_INTERVAL),
        inverse_interval=ms_kfac.FixedInterval(INVERSE_INTERVAL),
        distribution=ms_kfac.parallel.Distribution(exchange=exchange),
    )
    step = ms_kfac.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer)
    step.set_train()
    all_reduce, one = ops.AllReduce(), Tensor(np.ones(1, np.float32))

    def synchronized_counts() -> ByteCounts:
        all_reduce(one).asnumpy()
        # Waits for the confirmations of the last bytes.
        time.sleep(0.2)
        return read_byte_counts()

    synchronized_counts()
    before = synchronized_counts()
    rounds = synchronized_counts().since(before)
    rng = np.random.default_rng(get_rank())
    found: dict[str, list[ByteCounts]] = {PLAIN: [], WITH_STATISTICS: [], AT_REFRESH: []}
    for number in range(STEPS):
        images = Tensor(rng.standard_normal((BATCH, WIDTH)), ms.float32)
        labels = Tensor(rng.integers(0, WIDTH, BATCH), ms.int32)
        before = synchronized_counts()
        step(images, labels).asnumpy()
        found[kind_of(number)].append(synchronized_counts().since(before).since(rounds))

    planned = optimizer.traffic()
    weights = sum(parameter.size for parameter in network.trainable_params())
    gradients = 2 * (planned.ranks - 1) / planned.ranks * 4 * weights
    refresh_bytes = {
        PLAIN: 0.0,
        WITH_STATISTICS: planned.sent_with_statistics(),
        AT_REFRESH: planned.sent_with_statistics() + planned.sent_at_refresh(),
    }
    return [
        {
            "exchange": exchange,
            "step": kind,
            "sent": sum(one.sent for one in counts) / len(counts),
            "answered": sum(one.answered for one in counts) / len(counts),
            "expected": gradients + planned.sent_each_step() + refresh_bytes[kind],
        }
        for kind, counts in found.items()
    ]


def serve(folder: Path) -> None:
    """The process that msrun starts: the scheduler, or a rank that writes its results to a file."""
    import mindspore as ms
    from mindspore.communication import get_rank, init

    ms.set_device("CPU")
    # Returns in the scheduler when all ranks have left.
    init()
    if os.environ["MS_ROLE"] == "MS_SCHED":
        return
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
    lines = [line for exchange in ("inverses", "gradients") for line in measure(exchange)]
    (folder / f"{get_rank()}.json").write_text(json.dumps(lines), encoding="utf-8")


def launch(ranks: int) -> list[list[dict[str, Any]]]:
    """Runs the measurement on a number of ranks.

    Args:
        ranks: the number of ranks.

    Returns:
        The results of each rank.

    Raises:
        RuntimeError: a rank failed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        msrun = [sys.executable, "-m", "mindspore.parallel.cluster.run", "--join=True", f"--log_dir={folder}"]
        numbers = [f"--worker_num={ranks}", f"--local_worker_num={ranks}", f"--master_port={port}"]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        threads = str(max((os.cpu_count() or 1) // ranks, 1))
        subprocess.run(
            [
                "timeout",
                str(SECONDS),
                *msrun,
                *numbers,
                "python",
                "-m",
                "benchmarks.traffic",
                "--serve",
                name,
            ],
            cwd=ROOT,
            env={"GLOG_v": "3", "OMP_NUM_THREADS": threads, "MS_KFAC_THREADS": threads}
            | os.environ
            | {"PATH": path, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        results = [folder / f"{rank}.json" for rank in range(ranks)]
        for rank, result in enumerate(results):
            if not result.exists():
                log = folder / f"worker_{rank}.log"
                raise RuntimeError(
                    log.read_text(encoding="utf-8")[-2000:] if log.exists() else "msrun started no worker"
                )
        return [json.loads(result.read_text(encoding="utf-8")) for result in results]


def table(measured: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Formats the results as a Markdown table.

    Args:
        measured: the results of each rank; all ranks send about the same, and the table has the maximum.

    Returns:
        The table.
    """
    lines = [
        "| exchange | step | expected KB | sent KB | answered KB | sent / expected |",
        "|---|---|---|---|---|---|",
    ]
    for of_ranks in zip(*measured):
        sent, answered = (max(line[key] for line in of_ranks) for key in ("sent", "answered"))
        first = of_ranks[0]
        lines.append(
            f"| {first['exchange']} | {first['step']} | {first['expected'] / 1e3:.1f} | {sent / 1e3:.1f} | "
            f"{answered / 1e3:.1f} | {sent / first['expected']:.4f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic", description=__doc__.split("\n")[0])
    parser.add_argument("--worker-num", type=int, choices=[2, 4], default=2, help="ranks (default: 2)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        serve(options.serve)
        return 0
    print(f"{options.worker_num} ranks, bytes per rank and step\n\n{table(launch(options.worker_num))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
