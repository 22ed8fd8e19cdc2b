"""The processes of a distributed run: how they start, and how they join what each of them knows."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.communication import get_group_size, get_rank, init

from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import UsageError

_ROLE_VARIABLE = "MS_ROLE"
_THREADS_VARIABLE = "OMP_NUM_THREADS"


def serve_as_scheduler() -> None:
    """Where msrun started this process as the scheduler, serves the workers and exits; else returns at once.

    Raises:
        UsageError: msrun did not start this process.
    """
    role = os.environ.get(_ROLE_VARIABLE)
    if role is None:
        raise UsageError(
            "--distributed is for workers that msrun starts; use scripts/run_distributed_train.sh."
        )
    if role == "MS_SCHED":
        # Returns when all workers have left.
        init()
        sys.exit(0)


def set_device(device: str) -> None:
    """Sets MindSpore's device.

    Args:
        device: "CPU", "GPU" or "Ascend".

    Raises:
        UsageError: MindSpore can't run on it here.
    """
    try:
        ms.set_device(device)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"MindSpore can't run on --device {device} here: {reason}") from error


def start(device: str) -> Shard:
    """Joins the other processes; from here on MindSpore's training cells average gradients over them.

    Args:
        device: "CPU" or "GPU".

    Returns:
        This process among all.

    Raises:
        UsageError: MindSpore can't run on the device here.
    """
    set_device(device)
    init()
    shard = Shard(get_rank(), get_group_size())
    if shard.size > 1:
        ms.set_auto_parallel_context(
            parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=shard.size
        )
    threads = os.environ.get(_THREADS_VARIABLE, "")
    if threads.isdigit() and int(threads) > 0:
        # MindSpore's own pool does not read the variable.
        ms.runtime.dispatch_threads_num(int(threads))
    return shard


@contextmanager
def quiet_but_first(shard: Shard) -> Iterator[None]:
    """Lets the first process alone print, while a `with` block runs."""
    if shard.rank == 0:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def sums_over_ranks(values: Sequence[float], shard: Shard) -> list[float]:
    """Sums of what each process knows; all must call it, in the same order.

    Args:
        values: this process's numbers.
        shard: this process among all.

    Returns:
        For each number, its sum over the processes, in float32; with one process, the numbers as they are.
    """
    if shard.size == 1:
        return list(values)
    total = ops.AllReduce()(Tensor(np.asarray(values, np.float32)))
    return [float(value) for value in total.asnumpy()]


def require_agreement(what: str, content: bytes, shard: Shard) -> None:
    """Makes sure that all processes hold the same; all must call it, in the same order.

    Args:
        what: what it is, for the message.
        content: what this process holds.
        shard: this process among all.

    Raises:
        UsageError: processes differ.
    """
    if shard.size == 1:
        return
    # float32 holds 16-bit words exactly, and is what every backend gathers.
    words = np.frombuffer(hashlib.sha256(content).digest(), np.uint16).astype(np.float32)
    gathered = ops.AllGather()(Tensor(words[None])).asnumpy()
    others = [str(rank) for rank in range(shard.size) if not np.array_equal(gathered[rank], gathered[0])]
    if others:
        raise UsageError(
            f"{what} of rank {', '.join(others)} differ{'' if len(others) > 1 else 's'} from rank 0's: all "
            "processes need the same code, recipe, data and checkpoint."
        )


def weights_of(network: nn.Cell) -> bytes:
    """The trained parameters of a network in one string of bytes, for :func:`require_agreement`."""
    return b"".join(np.ascontiguousarray(value.asnumpy()).tobytes() for value in network.trainable_params())
