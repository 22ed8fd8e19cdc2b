"""Warn once that MindSpore's convolutions are slow on CPUs with AVX-512."""

from __future__ import annotations

import os

import mindspore as ms
from mindspore import mint, nn

from ms_kfac.kernels.processor import processor_flags
from ms_kfac.user_warning import warn_user

ONEDNN_VARIABLE = "ONEDNN_MAX_CPU_ISA"
# The values below AVX-512. oneDNN ignores their case, and takes any other value for no limit.
_LIMITS = ("sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2")
_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Conv1dTranspose, nn.Conv2dTranspose, nn.Conv3dTranspose),
    *(mint.nn.Conv1d, mint.nn.Conv2d, mint.nn.Conv3d, mint.nn.ConvTranspose2d),
)
_warned = False


def warn_of_slow_convolutions(owner: str, network: nn.Cell) -> None:
    """Warn if oneDNN runs a network's convolutions by its reference loop; once per process.

    Only a warning: oneDNN reads the variable before its first operator, which may have run already.

    Args:
        owner: the optimizer's class.
        network: the network to train.
    """
    global _warned
    if _warned or ms.get_context("device_target") != "CPU" or "avx512f" not in processor_flags():
        return
    if os.environ.get(ONEDNN_VARIABLE, "").lower() in _LIMITS:
        return
    if not any(isinstance(cell, _CONVOLUTIONS) for _, cell in network.cells_and_names()):
        return
    _warned = True
    warn_user(
        f"{owner}: on this CPU with AVX-512, MindSpore runs some convolutions by a reference loop: a step of "
        f"ResNet-20 takes 35 times as long. `{ONEDNN_VARIABLE}=AVX2 python ...` avoids the loop and silences "
        "this warning"
    )
