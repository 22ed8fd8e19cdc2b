"""Consistency of the network over ranks: equal weights at the start, averaged BatchNorm statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.communication import get_group_size
from mindspore.communication.management import GlobalComm

from ms_kfac.capture.batch_norm_buffers import batch_norm_buffers
from ms_kfac.parallel import collectives
from ms_kfac.user_warning import warn_user


def differing_ranks(parameters: Sequence[Parameter], size: int) -> list[int]:
    """Find the ranks whose parameters differ from those of rank 0 in any bit. All ranks must call it.

    Args:
        parameters: the parameters of this rank, of any shapes and dtypes.
        size: number of ranks.

    Returns:
        The differing ranks, the same list on all ranks.
    """
    digest = hashlib.sha256()
    for parameter in parameters:
        # NumPy has no bfloat16. The cast to float32 preserves differences.
        digest.update(np.ascontiguousarray(parameter.astype(ms.float32).asnumpy()).tobytes())
    # float32 represents 16-bit words exactly, and every backend can gather it.
    words = np.frombuffer(digest.digest(), np.uint16).astype(np.float32)
    gathered = collectives.all_gather()(Tensor(words)).asnumpy().reshape(size, -1)
    return [rank for rank in range(size) if not np.array_equal(gathered[rank], gathered[0])]


def warn_of_different_weights(parameters: Sequence[Parameter], size: int) -> None:
    """Warn if ranks start from different weights. All ranks must call it.

    Data-parallel training averages gradients only, so weights that differ at the start stay different. This
    is not an error, because all ranks may still load the same checkpoint.

    Args:
        parameters: the trained parameters.
        size: number of ranks.
    """
    others = differing_ranks(parameters, size)
    if others:
        warn_user(
            f"rank {', '.join(map(str, others))} begins with other weights than rank 0, and training keeps "
            "them different: call mindspore.set_seed with the same seed on all ranks before the network is "
            "created, or load the same checkpoint on all ranks before the first step"
        )


def average_moving_statistics(network: nn.Cell) -> None:
    r"""Average the moving means and variances of BatchNorm over all ranks.

    BatchNorm normalizes each rank's batch by the moments of that batch. MindSpore's moving variance averages
    unbiased variances. Its average over ranks therefore estimates the variance of the data without a term for
    the spread of the means.

    All ranks must call this function before an evaluation or a checkpoint. Training does not depend on it.
    With a single rank it does nothing.

    Args:
        network: the network. Its float32 moving statistics are written in place.
    """
    moments = [moment for moment in batch_norm_buffers(network) if moment.dtype == ms.float32]
    if not GlobalComm.INITED or get_group_size() == 1 or not moments:
        return
    values = [moment.asnumpy() for moment in moments]
    flat = np.concatenate([value.reshape(-1) for value in values])
    mean = collectives.all_reduce()(Tensor(flat)).asnumpy() / np.float32(get_group_size())
    begin = 0
    for moment, value in zip(moments, values):
        ops.assign(moment, Tensor(mean[begin : begin + value.size].reshape(value.shape)))
        begin += value.size
