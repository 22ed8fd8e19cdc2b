"""Whether ranks begin with the same weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from ms_kfac.parallel import collectives
from ms_kfac.user_warning import warn_user


def differing_ranks(parameters: Sequence[Parameter], size: int) -> list[int]:
    """The ranks whose parameters are not rank 0's, to the bit; all ranks have to call it.

    Args:
        parameters: what each rank holds, any shapes and types.
        size: the number of ranks.

    Returns:
        Their numbers, the same on all ranks.
    """
    digest = hashlib.sha256()
    for parameter in parameters:
        # NumPy has no bfloat16; a cast to float32 keeps what differs.
        digest.update(np.ascontiguousarray(parameter.astype(ms.float32).asnumpy()).tobytes())
    # float32 holds 16-bit words exactly, and is what every backend gathers.
    words = np.frombuffer(digest.digest(), np.uint16).astype(np.float32)
    gathered = collectives.all_gather()(Tensor(words)).asnumpy().reshape(size, -1)
    return [rank for rank in range(size) if not np.array_equal(gathered[rank], gathered[0])]


def warn_of_different_weights(parameters: Sequence[Parameter], size: int) -> None:
    """Warn where ranks begin with different weights; all ranks have to call it.

    Nothing in data-parallel training makes weights equal that were not: gradients alone are averaged. It is
    no error yet, because all ranks may still load one checkpoint.

    Args:
        parameters: what is trained.
        size: the number of ranks.
    """
    others = differing_ranks(parameters, size)
    if others:
        warn_user(
            f"rank {', '.join(map(str, others))} begins with other weights than rank 0, and will end with "
            "others: call mindspore.set_seed with one number on all ranks before the network is made, or "
            "load one checkpoint on all of them before the first step"
        )
