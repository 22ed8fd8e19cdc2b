"""Settings of the machine that must be made before the first operator runs."""

from __future__ import annotations

import os

ONEDNN_VARIABLE = "ONEDNN_MAX_CPU_ISA"


def prepare(device: str) -> str:
    """Makes convolutions fast on CPU.

    On processors with AVX-512, the oneDNN inside MindSpore has no fast kernel for some convolution gradients
    and takes its reference loop, tens of times slower than the AVX2 kernel (7 s instead of 0.2 s a step of
    ResNet-20). So oneDNN is held to AVX2. It reads the variable once, when the first operator runs; a value
    that is already set is kept.

    Args:
        device: "CPU", "GPU" or "Ascend".

    Returns:
        One line that says what holds for this run.
    """
    if device != "CPU":
        return f"device {device}"
    os.environ.setdefault(ONEDNN_VARIABLE, "AVX2")
    return f"device CPU, {ONEDNN_VARIABLE}={os.environ[ONEDNN_VARIABLE]} (set the variable to choose another)"
