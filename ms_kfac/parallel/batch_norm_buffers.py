"""Average of the BatchNorm moving statistics, which each rank updates from its own batches."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.communication import get_group_size
from mindspore.communication.management import GlobalComm

from ms_kfac.capture.batch_norm_buffers import batch_norm_buffers
from ms_kfac.parallel import collectives


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
