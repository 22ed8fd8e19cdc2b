"""Starts the processes of a distributed run and combines their values."""

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
from model_zoo.common.ranks import SCHEDULER, role_in_msrun

_THREADS_VARIABLE = "OMP_NUM_THREADS"


def serve_as_scheduler() -> None:
    """Runs the scheduler and exits if msrun started this process as the scheduler; otherwise returns.

    Raises:
        UsageError: msrun did not start this process.
    """
    role = role_in_msrun()
    if role is None:
        raise UsageError("--distributed needs msrun: start the run with scripts/run_distributed_train.sh.")
    if role == SCHEDULER:
        # Blocks until all workers have left.
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
    """Joins the process group; MindSpore's training cells then average gradients over it.

    Args:
        device: "CPU" or "GPU".

    Returns:
        The rank and the number of processes.

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
        # MindSpore's thread pool ignores the variable.
        ms.runtime.dispatch_threads_num(int(threads))
    return shard


@contextmanager
def silence_other_ranks(shard: Shard) -> Iterator[None]:
    """Silences standard output on all ranks except rank 0 inside a `with` block."""
    if shard.rank == 0:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def sum_over_ranks(values: Sequence[float], shard: Shard) -> list[float]:
    """Sums values over all processes; a collective call.

    Args:
        values: the values of this process.
        shard: this process's rank and the number of processes.

    Returns:
        The sum of each value over the processes, in float32. With one process, the values unchanged.
    """
    if shard.size == 1:
        return list(values)
    total = ops.AllReduce()(Tensor(np.asarray(values, np.float32)))
    return [float(value) for value in total.asnumpy()]


def require_equal_on_all_ranks(what: str, content: bytes, shard: Shard) -> None:
    """Checks that all processes hold the same bytes; a collective call.

    Args:
        what: the name of the content, for the message.
        content: the bytes of this process.
        shard: this process's rank and the number of processes.

    Raises:
        UsageError: the bytes differ between processes.
    """
    if shard.size == 1:
        return
    # float32 represents 16-bit words exactly, and every backend can gather it.
    words = np.frombuffer(hashlib.sha256(content).digest(), np.uint16).astype(np.float32)
    gathered = ops.AllGather()(Tensor(words[None])).asnumpy()
    others = [str(rank) for rank in range(shard.size) if not np.array_equal(gathered[rank], gathered[0])]
    if others:
        raise UsageError(
            f"{what} of rank {', '.join(others)} differ{'' if len(others) > 1 else 's'} from rank 0: all "
            "processes need the same code, recipe, data and checkpoint."
        )


def weight_bytes(network: nn.Cell) -> bytes:
    """The trainable parameters of a network as bytes, for :func:`require_equal_on_all_ranks`."""
    return b"".join(np.ascontiguousarray(value.asnumpy()).tobytes() for value in network.trainable_params())
