"""Native forms of the operators in ``ms_kfac.ops``, and which of them run."""

from __future__ import annotations

# Operators of ms_kfac.ops that do the work of a refresh or a step.
_OPERATORS = ("kronecker_statistics", "second_moment", "damped_inverse")


def status() -> str:
    """Say of every operator which form runs, and why.

    Returns:
        A text table, one row an operator: "composed" for built-in MindSpore operators. This version ships no
        native kernels.
    """
    width = max(map(len, _OPERATORS))
    rows = [f"{name.ljust(width)}  composed  this version has no native kernel for it" for name in _OPERATORS]
    return "\n".join(rows)
