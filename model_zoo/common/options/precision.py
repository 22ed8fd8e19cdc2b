"""The precision section of a recipe: the data type of the layers and the loss scale."""

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
    """Mixed precision. Statistics, inverses and weights are always float32.

    Attributes:
        amp_level: MindSpore's level of mixed precision. O0 is float32. O2 keeps BatchNorm in float32, O3
            does not. O1 casts the operators on MindSpore's list, and writes a folder rewritten_network to the
            working directory.
        loss_scale: None, a fixed scale, or "dynamic" for MindSpore's scale, which grows over time and is
            halved when gradients overflow. Both kinds skip a step whose gradients overflow.
    """

    amp_level: str = setting(one_of(["O0", "O1", "O2", "O3", "auto"]), "O0")
    loss_scale: float | str | None = setting(Value(f"null, {DYNAMIC} or {_SCALE.accepts}", _loss_scale), None)
