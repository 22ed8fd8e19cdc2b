"""The precision section of a recipe: in which type layers compute, and how the loss is scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_zoo.common.schema import Value, number, one_of, setting

DYNAMIC = "dynamic"


_SCALE = number(least=1)


def _loss_scale(value: Any) -> float | str | None:
    return value if value is None or value == DYNAMIC else float(_SCALE.convert(value))


@dataclass(frozen=True)
class PrecisionOptions:
    """Statistics, inverses and weights are float32 whatever is chosen here.

    Attributes:
        amp_level: MindSpore's level of mixed precision. O0 is float32; O2 keeps BatchNorm in float32, O3
            nothing; O1 casts what MindSpore lists, and writes a folder rewritten_network to where it runs.
        loss_scale: None, a fixed scale, or "dynamic" for one that MindSpore lets grow and halves when
            gradients overflow. A step whose gradients overflow is dropped, with either scale.
    """

    amp_level: str = setting(one_of(["O0", "O1", "O2", "O3", "auto"]), "O0")
    loss_scale: float | str | None = setting(Value(f"null, {DYNAMIC} or {_SCALE.accepts}", _loss_scale), None)
