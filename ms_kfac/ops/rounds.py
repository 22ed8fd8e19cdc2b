"""Loops over layers in compiled steps, cut into short ones.

MindSpore compiles each round of a Python loop as a call inside the call of the round before. A loop over a
hundred layers takes long to compile, and one over some hundreds ends at its limit of 1,000 nested calls.
Cells that do a few rounds each keep the nesting shallow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

# With 60 blocks, compilation takes as long for 4 as for 32.
ROUNDS = 16


def in_rounds(items: Sequence[Item]) -> list[list[Item]]:
    """Cut a sequence into pieces of a few items.

    Args:
        items: what a loop would run over.

    Returns:
        The pieces, in order; none for an empty sequence.
    """
    return [list(items[start : start + ROUNDS]) for start in range(0, len(items), ROUNDS)]
