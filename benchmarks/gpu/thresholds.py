"""The largest errors that the arithmetic of a kernel explains. A larger error fails its part.

Errors are relative, in the Frobenius norm, against float64. Roundings to nearest have independent signs, so
the rounding error of a sum of n numbers grows like sqrt(n), not like n (Higham and Mary, "A new approach to
probabilistic rounding error analysis", 2019). The bounds below leave a factor of three or more to that model.
"""

from __future__ import annotations

from math import ceil, sqrt

FLOAT32 = 2.0**-24
# An operand is rounded to TF32 once. Operands in bfloat16 come as such and are not rounded.
OPERAND = {"float32": 0.0, "tf32": 2.0**-11, "bfloat16": 0.0}
# Tensor cores truncate every number that they add to a float32 sum. That loses half a unit in the last place
# on average, of a partial sum that is half of the whole one on average. The losses have one sign and add up.
TRUNCATION = 2.0**-25
# Roundings of a weight and its moment in two steps, including those of the four numbers of the rule.
MOMENTUM_ROUNDINGS = 16


def covariance(precision: str, rows: int, cancellation: float) -> float:
    """The threshold of a covariance X^T X.

    Args:
        precision: of the products.
        rows: rows of X.
        cancellation: norm of |X|^T |X| over that of X^T X.

    Returns:
        A random walk of one rounding per row; on tensor cores also one truncation per row, and the rounding
        of both operands.
    """
    truncated = 0.0 if precision == "float32" else TRUNCATION * rows
    return (sqrt(rows) * FLOAT32 + truncated + 2 * OPERAND[precision]) * cancellation


def inverse(dimension: int, condition: float) -> float:
    """The threshold of a damped inverse in float32.

    Args:
        dimension: of the matrix.
        condition: its condition number in the 1-norm, which is at least that in the spectral norm.

    Returns:
        A random walk of one rounding per dimension, amplified by the condition number, once each for the
        damping, the factorization and the two solves.
    """
    return 4 * sqrt(dimension) * FLOAT32 * condition


def eigenbasis(dimension: int) -> float:
    """The threshold of Q S Q^T, and of Q^T Q, for eigenvectors by Jacobi's method.

    Args:
        dimension: of the matrix.

    Returns:
        A random walk of one rounding per rotation: in each of ten sweeps a row meets each other one, in whole
        blocks of 64 rows. Rows and columns are rotated.
    """
    return 3 * sqrt(2 * 10 * 64 * ceil(dimension / 64)) * FLOAT32


def precondition(precision: str, rows: int, columns: int) -> float:
    """The threshold of G D A for independent numbers without a mean.

    The partial sums of such numbers are a random walk themselves. So cancellation does not amplify errors.

    Args:
        precision: of the products.
        rows: dimension of G.
        columns: dimension of A.

    Returns:
        One random walk of roundings for each product; on tensor cores also one truncation per term, and the
        rounding of both operands.
    """
    truncated = 0.0 if precision == "float32" else TRUNCATION * (rows + columns)
    return (sqrt(rows) + sqrt(columns)) * FLOAT32 + truncated + 4 * OPERAND[precision]


def inner_product(precision: str, rows: int, columns: int) -> float:
    """The threshold of the inner product of D and G D A, for such numbers.

    Args:
        precision: of G D A.
        rows: dimension of G.
        columns: dimension of A.

    Returns:
        A random walk of roundings over all numbers of D, in addition to the errors of G D A.
    """
    return sqrt(rows * columns) * FLOAT32 + precondition(precision, rows, columns)


def momentum() -> float:
    """The threshold of a weight or a moment after two steps: no difference of near numbers occurs."""
    return MOMENTUM_ROUNDINGS * FLOAT32
