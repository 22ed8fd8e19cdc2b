"""The lines of metrics.jsonl: one JSON object per line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from model_zoo.common.values import json_values

# Their numbers are those of the training: null stands for NaN or Inf. In other objects it may mean "none".
_OF_TRAINING = ("step", "epoch")


def line_of(values: Mapping[str, Any]) -> str:
    """Formats an object, without a line break.

    Args:
        values: numbers, texts, dictionaries and lists by name. Numbers that JSON can't hold, as after a
            divergence, become null.

    Returns:
        The line.
    """
    return json.dumps(json_values(values), allow_nan=False)


def values_of(line: str | bytes) -> Any:
    """Reads a line.

    Args:
        line: what `line_of` wrote.

    Returns:
        The object. In those of the kinds "step" and "epoch", null is read as NaN.
    """
    content = json.loads(line)
    if isinstance(content, dict) and content.get("kind") in _OF_TRAINING:
        return {name: math.nan if value is None else value for name, value in content.items()}
    return content
