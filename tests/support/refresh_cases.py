"""Arrays for every refresh operator, and two layers for each to refresh in one call."""

from __future__ import annotations

from typing import Any

import numpy as np

from ms_kfac.ops.refresh.block_split_refresh import BlockSplitRefresh
from ms_kfac.ops.refresh.eigenbasis_refresh import EigenbasisRefresh
from ms_kfac.ops.refresh.kronecker_refresh import KroneckerRefresh
from ms_kfac.ops.refresh.sherman_morrison_refresh import ShermanMorrisonOptions, ShermanMorrisonRefresh
from ms_kfac.ops.refresh.skfac_refresh import SKFACRefresh
from ms_kfac.ops.refresh.trace_restricted_refresh import TraceRestrictedDamping, TraceRestrictedRefresh
from tests.support.refreshes import gram_sum


def identities(shape: tuple[int, ...]) -> Any:
    return np.full(shape, 7.0)


def split_arrays(dim_A: int, dim_G: int, split: int, count: float) -> list[Any]:
    rng = np.random.default_rng([dim_A, dim_G, split])
    values = [gram_sum(dim, 1, rng) * (count > 0) for dim in (dim_A, dim_G)]
    values += [np.array([count, 2.0 * count])]
    for dim in (dim_A, dim_G):
        pieces = dim // split if dim > split else 0
        rest = dim - pieces * split
        values += [identities((pieces, split, split) if pieces else (1, 1, 1))]
        values += [identities((max(rest, 1),) * 2)]
    return values


def trace_restricted_arrays(dim_Phi: int, dim_Psi: int, groups: int, count: float, roots: bool) -> list[Any]:
    rng = np.random.default_rng([dim_Phi, dim_Psi, groups])
    seen = count > 0
    shape = (groups, 1, 1) if groups > 1 else ()
    sums = [gram_sum(dim, groups, rng) * seen for dim in (dim_Phi, dim_Psi)]
    # As large as the sums' own traces, which keeps the damping in proportion.
    traces = rng.uniform(0.5, 2.0, (2, *shape) if roots else shape) * max(dim_Phi, dim_Psi) ** 2 * seen
    return [*sums, traces, np.array([count]), *(identities(total.shape) for total in sums), 1.5]


def eigenbasis_arrays(dim_A: int, dim_G: int, groups: int, count: float) -> list[Any]:
    rng = np.random.default_rng([dim_A, dim_G, groups])
    seen = count > 0
    leading = (groups,) if groups > 1 else ()
    A, G = gram_sum(dim_A, groups, rng) * seen, gram_sum(dim_G, groups, rng) * seen
    shapes = [(dim_A, dim_A), (dim_G, dim_G), (dim_G, dim_A), (), (1, dim_A), (dim_G, 1)]
    Q_A, Q_G, s_sum, _, S_A, S_G = (identities((*leading, *shape)) for shape in shapes)
    return [A, G, np.array([count, count, 2.0 * seen]), Q_A, Q_G, s_sum, 0.0, S_A, S_G, 7.0]


def sherman_morrison_arrays(
    shape: tuple[int, int, int], counts: tuple[float, ...], full: float, refreshes: float, rescale: bool
) -> list[Any]:
    dim_A, dim_G, groups = shape
    rng = np.random.default_rng([dim_A, dim_G, groups])
    leading = (groups,) if groups > 1 else ()
    values: list[Any] = [gram_sum(dim, groups, rng) * (counts[0] > 0) for dim in (dim_A, dim_G)]
    values += [rng.uniform(0.5, 2.0, (*leading, dim)) * (counts[2] > 0) for dim in (dim_A, dim_G)]
    values += [np.array(counts), full, refreshes]
    values += [np.linalg.inv(gram_sum(dim, groups, rng) + np.eye(dim)) for dim in (dim_A, dim_G)]
    return values + [rng.uniform(5.0, 9.0, (*leading, 1, 1)) for _ in range(3 * rescale)]


def skfac_arrays(dim_A: int, dim_G: int, groups: int, rows: int) -> list[Any]:
    rng = np.random.default_rng([dim_A, dim_G, groups])
    leading = (groups,) if groups > 1 else ()
    values: list[Any] = []
    ranks = [min(rows, dim_A), min(rows, dim_G)]
    for dim, rank in zip((dim_A, dim_G), ranks):
        buffer = np.zeros((*leading, dim, dim))
        buffer[..., :rank, :] = rng.standard_normal((*leading, rank, dim))
        # One row fewer than the rank has room for, as after a smaller batch.
        buffer[..., rank - 1, :] *= rank == 1
        values += [gram_sum(dim, groups, rng) if rank == dim else buffer]
    # A loss scale makes fractions of the numbers of rows.
    values += [np.array([1.25 * rows, 0.75 * rows, *ranks])]
    values += [identities((*leading, dim, dim)) for dim in (dim_A, dim_G)]
    return [*values, *(identities((*leading, 1, 1)) for _ in range(2)), np.zeros(2)]


OPTIONS = TraceRestrictedDamping(automatic=True, nu=0.1, homogeneous=False, expands=True, roots=False)


def kronecker_arrays(dim_A: int, dim_G: int, groups: int) -> list[Any]:
    rng = np.random.default_rng([dim_A, dim_G, groups])
    A, G = gram_sum(dim_A, groups, rng), gram_sum(dim_G, groups, rng)
    return [A, G, np.array([3.0, 6.0]), identities(A.shape), identities(G.shape)]


OPERATORS = {
    "kronecker": (
        [kronecker_arrays(9, 7, 2), kronecker_arrays(5, 6, 1)],
        lambda arrays, i: KroneckerRefresh(f"layer {i}", arrays),
    ),
    "block_split": (
        [split_arrays(9, 7, 4, 3.0), split_arrays(5, 6, 3, 3.0)],
        lambda arrays, i: BlockSplitRefresh(f"layer {i}", arrays, split=(4, 3)[i]),
    ),
    "trace_restricted": (
        [trace_restricted_arrays(9, 7, 2, 3.0, False), trace_restricted_arrays(5, 6, 1, 3.0, False)],
        lambda arrays, i: TraceRestrictedRefresh(f"layer {i}", arrays, OPTIONS),
    ),
    "sherman_morrison": (
        [
            sherman_morrison_arrays((9, 7, 2), (2.0, 3.0, 2.0, 3.0), 1.0, 1.0, True),
            sherman_morrison_arrays((5, 6, 1), (2.0, 3.0, 2.0, 3.0), 0.0, 4.0, True),
        ],
        lambda arrays, i: ShermanMorrisonRefresh(
            f"layer {i}", arrays, ShermanMorrisonOptions(2, (0.2, 0.3), True, 3)
        ),
    ),
    "skfac": (
        [skfac_arrays(9, 7, 2, 4), skfac_arrays(5, 6, 1, 7)],
        lambda arrays, i: SKFACRefresh(f"layer {i}", arrays, None, splits=bool(i)),
    ),
    "eigenbasis": (
        [eigenbasis_arrays(9, 7, 2, 3.0), eigenbasis_arrays(5, 6, 1, 3.0)],
        lambda arrays, i: EigenbasisRefresh(f"layer {i}", arrays),
    ),
}
