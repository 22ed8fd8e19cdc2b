"""Split loops over layers in compiled steps into short loops.

MindSpore compiles each iteration of a Python loop as a call nested in the call of the previous iteration. A
loop over a hundred layers takes long to compile. A loop over several hundred layers reaches MindSpore's limit
of 1,000 nested calls. Cells that run a few iterations each keep the nesting shallow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

# With 60 blocks, the compile time is the same for 4 and for 32.
ROUNDS = 16


def in_rounds(items: Sequence[Item]) -> list[list[Item]]:
    """Split a sequence into chunks of at most ``ROUNDS`` items.

    Args:
        items: the items of the whole loop.

    Returns:
        The chunks, in order. An empty sequence has no chunks.
    """
    return [list(items[start : start + ROUNDS]) for start in range(0, len(items), ROUNDS)]
