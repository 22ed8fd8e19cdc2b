"""Environment variables that must be set before the first operator runs."""

from __future__ import annotations

import os

ONEDNN_VARIABLE = "ONEDNN_MAX_CPU_ISA"


def limit_onednn(device: str) -> str:
    """Limits oneDNN to AVX2 on CPU, which makes convolutions fast.

    On processors with AVX-512, MindSpore's oneDNN has no fast kernel for some convolution gradients. It falls
    back to a reference loop, tens of times slower than the AVX2 kernel: 7 s instead of 0.2 s per step of
    ResNet-20. oneDNN reads the variable once, when the first operator runs. A value that is already set is
    kept.

    Args:
        device: "CPU", "GPU" or "Ascend".

    Returns:
        One line that describes the device and the setting.
    """
    if device != "CPU":
        return f"device {device}"
    os.environ.setdefault(ONEDNN_VARIABLE, "AVX2")
    return f"device CPU, {ONEDNN_VARIABLE}={os.environ[ONEDNN_VARIABLE]} (set the variable to choose another)"
