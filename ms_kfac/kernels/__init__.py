"""Native forms of the operators in ``ms_kfac.ops``, and which of them run."""

from __future__ import annotations

# Operators of ms_kfac.ops that do the work of a refresh or a step.
_OPERATORS = (
    "kronecker_statistics",
    "trace_restricted_statistics",
    "sherman_morrison_statistics",
    "swift_statistics",
    "eigenbasis_statistics",
    "unit_wise_statistics",
    "embedding_statistics",
    "second_moment",
    "diagonal_moment",
    "damped_inverse",
    "diagonal_blocks",
    "rank_one_inverse",
    "low_rank_inverse",
    "eigendecomposition",
)


def status() -> str:
    """Say of every operator which form runs, and why.

    Returns:
        A text table, one row an operator: "composed" for built-in MindSpore operators. This version ships no
        native kernels.
    """
    width = max(map(len, _OPERATORS))
    rows = [f"{name.ljust(width)}  composed  this version has no native kernel for it" for name in _OPERATORS]
    return "\n".join(rows)
