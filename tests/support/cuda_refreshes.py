"""Cases and float64 oracles for the CUDA operators that refresh inverses, for the emulator and for GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, NamedTuple

import numpy as np

from benchmarks.support.aot import AotLibrary

ROUNDOFF = 2.0**-24


class Expected(NamedTuple):
    """An array in float64, and how far float32 may be from each of its entries."""

    value: np.ndarray
    allowed: np.ndarray


# What a refresh of a layer writes, by the index of the array, from the layer's arrays and the damping.
Oracle = Callable[[Sequence[np.ndarray], float], Mapping[int, Expected]]
# What is compared instead of an array that is not unique, by its index, from the arrays after a refresh.
View = Callable[[Sequence[np.ndarray]], Mapping[int, np.ndarray]]


@dataclass
class Layer:
    """A layer's arrays before a refresh, its share of the attributes, and what becomes of the arrays."""

    arrays: list[np.ndarray]
    oracle: Oracle
    attributes: dict[str, Any]
    view: View = lambda arrays: {}

    def __post_init__(self) -> None:
        self.arrays = [np.array(array, np.float32, order="C") for array in self.arrays]


class Refresh:
    """An operator created for some layers, with arrays of its own."""

    def __init__(
        self,
        library: AotLibrary,
        name: str,
        layers: Sequence[Layer],
        damping: float,
        due: Any = 1,
        reporter: int = 0,
    ) -> None:
        self.layers = layers
        self.due = np.array(due, np.int32)
        self.damping = np.array(damping, np.float32)
        self.arrays = [[array.copy() for array in layer.arrays] for layer in layers]
        self.output = np.zeros(1, np.float32)
        attributes = {key: [layer.attributes[key] for layer in layers] for key in layers[0].attributes}
        names = "\n".join(f"layer {index}" for index in range(len(layers)))
        flat = [array for arrays in self.arrays for array in arrays]
        inputs = [self.due, self.damping, *flat]
        self.operator = library.operator(
            name, inputs, [self.output], layers=names, reporter=reporter, **attributes
        )

    def run(self) -> None:
        self.operator.run()

    def check(self, index: int) -> None:
        """A layer was refreshed: the oracle's arrays have its values, all others are unchanged."""
        layer, found = self.layers[index], self.arrays[index]
        expected = layer.oracle(layer.arrays, float(self.damping))
        views = layer.view(found)
        for place, (array, before) in enumerate(zip(found, layer.arrays)):
            if place not in expected:
                np.testing.assert_array_equal(array, before, err_msg=f"layer {index}, array {place}")
                continue
            value, allowed = expected[place]
            seen = views.get(place, array)
            error = abs(seen - value.reshape(seen.shape))
            allowed = allowed.reshape(seen.shape)
            assert (error <= allowed).all(), (index, place, (error / np.maximum(allowed, 1e-300)).max())

    def check_untouched(self, index: int) -> None:
        """A layer has not been refreshed."""
        for place, (array, before) in enumerate(zip(self.arrays[index], self.layers[index].arrays)):
            np.testing.assert_array_equal(array, before, err_msg=f"layer {index}, array {place}")


def stacked(array: np.ndarray) -> np.ndarray:
    """An array of matrices with a leading axis in any case, in float64."""
    return array.astype(np.float64).reshape(-1, *array.shape[-2:])


def inverses(factors: np.ndarray, scale: float, damping: np.ndarray) -> Expected:
    """Inverses of ``scale F + damping I`` for matrices (g, d, d) and dampings (g,).

    To invert through a Cholesky decomposition is to invert exactly a matrix that is a little off: by d
    roundoffs of its norm at most (Higham 2002, sections 10.1 and 14.3), by about sqrt(d) where they average
    out as they do here, and by four for the scale, the damping, their sum and the square roots. The inverse
    is off by the condition number times that, in its norm.
    """
    values, allowed = [], []
    for factor, extra in zip(factors, damping):
        damped = scale * factor + extra * np.eye(factor.shape[-1])
        inverse = np.linalg.inv(damped)
        roundoffs = (4 + np.sqrt(len(factor))) * ROUNDOFF
        bound = roundoffs * np.linalg.cond(damped) * np.linalg.norm(inverse, 2)
        values.append((inverse + inverse.T) / 2)
        allowed.append(np.full(factor.shape, bound))
    return Expected(np.stack(values), np.stack(allowed))


def number(value: np.ndarray) -> Expected:
    """A few numbers that are computed in float64, from float32 and to float32."""
    return Expected(value, 8 * ROUNDOFF * abs(value))


def split(
    A: np.ndarray, G: np.ndarray, damping: float, by_traces: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Martens & Grosse's dampings of average factors (g, d, d), one per group; equal ones without traces."""
    means = [np.trace(factor, axis1=1, axis2=2) / factor.shape[-1] for factor in (A, G)]
    known = by_traces & (means[0] > 0) & (means[1] > 0)
    pi = np.sqrt(np.where(known, means[0], 1.0) / np.where(known, means[1], 1.0))
    return np.sqrt(damping) * pi, np.sqrt(damping) / pi


def average(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return stacked(total) / float(count) if count != 0 else 0.0 * stacked(total)


def gram(dimension: int, groups: int, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """A sum of outer products of a rank below the dimension, with a leading axis where there are groups."""
    rows = scale * rng.standard_normal((groups, max(dimension // 2, 1), dimension))
    total = np.swapaxes(rows, -1, -2) @ rows
    return total if groups > 1 else total[0]


def old(*shape: int) -> np.ndarray:
    """What stands where an inverse is to be written."""
    return np.full(shape, 7.0)


# The operators, each with its layers.


def kronecker(
    dim_A: int,
    dim_G: int,
    rng: np.random.Generator,
    groups: int = 1,
    count: float = 3.0,
    zero_trace: bool = False,
    splits: bool = True,
) -> Layer:
    A, G = gram(dim_A, groups, rng), gram(dim_G, groups, rng, 0.1)
    weights = np.array([count, 2 * count])
    arrays = [A * (not zero_trace), G, weights, old(*A.shape), old(*G.shape)]
    return Layer(arrays, partial(kronecker_oracle, splits=splits), {"splits": int(splits)})


def kronecker_oracle(
    arrays: Sequence[np.ndarray], damping: float, splits: bool = True
) -> Mapping[int, Expected]:
    A, G = (average(arrays[side], arrays[2][side]) for side in (0, 1))
    damping_A, damping_G = split(A, G, damping, splits)
    if arrays[2][0] == 0:
        damping_A, damping_G = np.ones(len(A)), np.ones(len(G))
    return {3: inverses(A, 1.0, damping_A), 4: inverses(G, 1.0, damping_G)}


def block_split(
    dim_A: int,
    dim_G: int,
    size: int,
    rng: np.random.Generator,
    count: float = 3.0,
    splits: bool = True,
) -> Layer:
    arrays = [gram(dim_A, 1, rng), gram(dim_G, 1, rng, 0.1), np.array([count, 1.5 * count])]
    for dimension in (dim_A, dim_G):
        blocks = dimension // size if dimension > size else 0
        rest = dimension - blocks * size
        arrays += [old(blocks, size, size) if blocks else old(), old(rest, rest) if rest else old()]

    def oracle(arrays: Sequence[np.ndarray], damping: float) -> Mapping[int, Expected]:
        A, G = (average(arrays[side], arrays[2][side]) for side in (0, 1))
        dampings = split(A, G, damping, splits) if arrays[2][0] != 0 else (np.ones(1), np.ones(1))
        expected = {}
        for place, factor, extra in zip((3, 5), (A[0], G[0]), dampings):
            starts = list(range(0, len(factor), size)) if len(factor) > size else [0]
            blocks = [factor[i : i + size, i : i + size] for i in starts]
            whole = [b for b in blocks if len(b) == size and len(factor) > size]
            if whole:
                expected[place] = inverses(np.stack(whole), 1.0, np.repeat(extra, len(whole)))
            if len(whole) < len(blocks):
                expected[place + 1] = inverses(blocks[-1][None], 1.0, extra)
        return expected

    return Layer(arrays, oracle, {"split": size, "splits": int(splits)})


def trace_restricted(
    dim_Phi: int,
    dim_Psi: int,
    rng: np.random.Generator,
    groups: int = 1,
    count: float = 3.0,
    delta: float = 0.7,
    beta: float = 2.0,
    **options: Any,
) -> Layer:
    """Sums of ``count`` batches with the trace ``delta``."""
    attributes = {"automatic": 0, "homogeneous": 0, "expands": 0, "roots": 0, "nu": 0.5, **options}
    seen = count if count > 0 else 1.0
    traces = seen * delta * np.linspace(1.0, 1.5, groups).reshape((groups, 1, 1) if groups > 1 else ())
    sums = []
    for dimension in (dim_Phi, dim_Psi):
        total = gram(dimension, groups, rng)
        sums.append(total / np.trace(total, axis1=-2, axis2=-1)[..., None, None] * seen * delta)
    if attributes["roots"]:
        traces = np.stack([traces, 0.8 * traces])
    shapes = [total.shape for total in sums]
    arrays = [*sums, traces, np.array([count]), *(old(*shape) for shape in shapes), np.array(beta)]

    def oracle(arrays: Sequence[np.ndarray], damping: float) -> Mapping[int, Expected]:
        traces, count, beta = (array.astype(np.float64) for array in (arrays[2], arrays[3][0], arrays[6]))
        found: list[list[Expected]] = [[], []]
        for group in range(groups):
            for side in (0, 1):
                factor = stacked(arrays[side])[group]
                growth, shift = 0.0, 1.0
                if count != 0:
                    # Of the averages: delta, and with roots the shift.
                    averages = traces.reshape(-1, groups)[:, group] / count
                    growth, shift = growth_and_shift(attributes, averages, float(beta), damping, len(factor))
                    growth /= count
                found[side].append(inverses(growth * factor[None], 1.0, np.array([shift])))
        joined = [Expected(*(np.concatenate(parts) for parts in zip(*side))) for side in found]
        return {4: joined[0], 5: joined[1]}

    return Layer(arrays, oracle, attributes)


def growth_and_shift(
    options: Mapping[str, Any], averages: np.ndarray, beta: float, damping: float, dimension: int
) -> tuple[float, float]:
    """What an average of TKFAC's sums is multiplied by and what is added to its diagonal.

    Gao et al. 2021: equation 14 without automatic damping, 15 with it, 17 and 18 where roots are averaged.
    """
    delta = averages[0]
    # To factors of trace sqrt(delta), as averages of roots are.
    growth = 1.0 if options["roots"] else 1 / np.sqrt(delta)
    if not options["automatic"]:
        return growth, np.sqrt(damping)
    if options["roots"] and not options["expands"]:
        return growth, averages[1] / dimension
    expansion = beta if options["expands"] else 1.0
    larger = max(expansion * delta, options["nu"])
    growth *= np.sqrt(larger / delta)
    power = 0.5 if options["homogeneous"] else 1.0
    if not options["roots"]:
        return growth, larger**power / dimension
    return growth, max(averages[1] * expansion**power, options["nu"] ** power) / dimension


def skfac(
    dim_A: int,
    dim_G: int,
    rows: int,
    rng: np.random.Generator,
    groups: int = 1,
    splits: bool = True,
    present: float | None = None,
    seen: tuple[bool, bool] = (True, True),
) -> Layer:
    """Both factors from a batch of ``rows`` rows; ``present`` of them count, by default all."""
    leading = (groups,) if groups > 1 else ()
    arrays: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for dimension, there in zip((dim_A, dim_G), seen):
        rank = min(rows, dimension)
        buffer = np.zeros((*leading, dimension, dimension))
        buffer[..., :rank, :] = rng.standard_normal((*leading, rank, dimension))
        # Beyond the rank is what other batches left.
        buffer[..., rank:, :] = 1e6
        weights.append(there * np.array([rows if present is None else present, rank]))
        arrays.append(gram(dimension, groups, rng) if rank == dimension else buffer)
    arrays.append(np.stack(weights, axis=1).ravel())
    arrays += [old(*leading, dimension, dimension) for dimension in (dim_A, dim_G)]
    arrays += [old(*leading, 1, 1), old(*leading, 1, 1), np.zeros(2)]

    def oracle(arrays: Sequence[np.ndarray], damping: float) -> Mapping[int, Expected]:
        if arrays[2][0] == 0 or arrays[2][1] == 0:
            return {}
        found: dict[int, Expected] = {7: number(arrays[2][2:])}
        factors = []
        for side in (0, 1):
            buffer, rank = stacked(arrays[side]), int(arrays[2][2 + side])
            count = float(arrays[2][side])
            if rank < buffer.shape[-1]:
                X = buffer[:, :rank] / np.sqrt(count)
                factors.append((np.swapaxes(X, -1, -2) @ X, X))
            else:
                factors.append((buffer / count, None))
        dampings = split(factors[0][0], factors[1][0], damping, splits)
        for side, (factor, X) in enumerate(factors):
            found[5 + side] = number(dampings[side])
            found[3 + side] = (
                inverses(factor, 1.0, dampings[side]) if X is None else woodbury(X, dampings[side])
            )
        return found

    return Layer(arrays, oracle, {"splits": int(splits)})


def woodbury(X: np.ndarray, damping: np.ndarray) -> Expected:
    """Z = L^-1 X with D I + X X^T = L L^T above zeros, for X (g, rank, d).

    As in :func:`inverses`, with products of d numbers; the singular values of Z are below 1.
    """
    rank, dimension = X.shape[-2:]
    Z = np.zeros((len(X), dimension, dimension))
    allowed = np.zeros_like(Z)
    for group, (rows, extra) in enumerate(zip(X, damping)):
        small = rows @ rows.T + extra * np.eye(rank)
        Z[group, :rank] = np.linalg.solve(np.linalg.cholesky(small), rows)
        allowed[group, :rank] = (4 + np.sqrt(dimension)) * ROUNDOFF * np.linalg.cond(small)
    return Expected(Z, allowed)


def eigenbasis(
    dim_A: int,
    dim_G: int,
    rng: np.random.Generator,
    groups: int = 1,
    count: float = 3.0,
    decay: float = 0.0,
) -> Layer:
    """A of half the full rank; G of the full rank, with variances that decrease as powers of `decay`."""
    seen = count > 0
    leading = (groups,) if groups > 1 else ()
    rows = rng.standard_normal((*leading, 2 * dim_G, dim_G)) * np.exp(-decay * np.arange(dim_G))
    A, G = seen * gram(dim_A, groups, rng), seen * (np.swapaxes(rows, -1, -2) @ rows)
    arrays = [A, G, np.array([count, 2 * count, 5.0 * seen]), old(*A.shape), old(*G.shape)]
    arrays += [old(*leading, dim_G, dim_A), np.zeros(())]
    arrays += [old(*leading, 1, dim_A), old(*leading, dim_G, 1), old()]

    def oracle(arrays: Sequence[np.ndarray], damping: float) -> Mapping[int, Expected]:
        found = {5: number(np.zeros(arrays[5].shape))}
        found[2] = number(np.array([*arrays[2][:2], 0.0]))
        found[6], found[9] = number(np.ones(())), number(np.array(damping if seen else 1.0))
        for side in (0, 1):
            factors = average(arrays[side], arrays[2][side])
            if side == 0 and not seen:
                factors = factors + np.eye(dim_A)
            found[3 + side], found[7 + side] = eigenvectors(factors)
        return found

    def view(arrays: Sequence[np.ndarray]) -> Mapping[int, np.ndarray]:
        return {3 + side: given_back(arrays[3 + side], arrays[7 + side]) for side in (0, 1)}

    return Layer(arrays, oracle, {}, view)


def given_back(vectors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Q S Q^T and Q^T Q. Eigenvectors are unique up to signs, or up to rotations if eigenvalues repeat."""
    Q = stacked(vectors)
    transposed = np.swapaxes(Q, -1, -2)
    return np.stack([Q * values.astype(np.float64).reshape(len(Q), 1, -1) @ transposed, transposed @ Q])


def eigenvectors(factors: np.ndarray) -> tuple[Expected, Expected]:
    """What :func:`given_back` gives of the eigenvectors of factors (g, d, d), and their eigenvalues.

    Each of about ten sweeps rotates a row once with each other one of its matrix, which has whole blocks of
    64 rows. Rotations of rows and of columns each round once; such errors add up as square roots do, in the
    factor's norm. As many roundoffs are added for what the last sweep leaves off the diagonal. Eigenvectors
    have been divided by their lengths, and eigenvalues are quotients of them: both are float32 sums of d
    products.
    """
    dimension = factors.shape[-1]
    roundoffs = 4 + 2 * np.sqrt(10 * 64 * np.ceil(dimension / 64))
    norms = np.linalg.norm(factors, axis=(-2, -1))[:, None, None]
    of_factors = np.broadcast_to(roundoffs * ROUNDOFF * norms, factors.shape)
    identity = np.broadcast_to(np.eye(dimension), factors.shape)
    orthogonal = np.full((dimension, dimension), roundoffs * ROUNDOFF)
    np.fill_diagonal(orthogonal, (4 + np.sqrt(dimension)) * ROUNDOFF)
    allowed = np.stack([of_factors, np.broadcast_to(orthogonal, factors.shape)])
    values = np.maximum(np.linalg.eigvalsh(factors), 0.0)
    of_values = np.broadcast_to((4 + np.sqrt(dimension)) * ROUNDOFF * norms[:, 0], values.shape)
    return Expected(np.stack([factors, identity]), allowed), Expected(values, of_values)
