"""Cases and oracle of the CUDA operator of Sherman-Morrison refreshes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.cuda_cases import ROUNDOFF, assert_within

ARRAYS = (
    *("A_sum", "G_sum", "A_diagonal", "G_diagonal", "counts", "full", "refreshes", "A_inverse", "G_inverse"),
    *("A_trace", "G_trace", "scale"),
)
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class RefreshedLayer:
    """A layer's sizes, where it stands and its options; `counts` are of A_sum, G_sum and the diagonals."""

    inputs: int
    outputs: int
    groups: int = 1
    counts: tuple[float, float, float, float] = (3.0, 2.0, 1.5, 2.5)
    full: float = 0.0
    refreshes: float = 5.0
    full_refreshes: int = 2
    interval: int = 0
    rescales: bool = True
    splits: bool = True
    due: int = 1
    alpha: float = 0.3
    beta: float = 0.2

    def draw(self, rng: np.random.Generator) -> list[np.ndarray]:
        """The layer's arrays, in the order of ``ARRAYS``."""
        lead = (self.groups,) if self.groups > 1 else ()
        sums, inverses = [], []
        for size in (self.inputs, self.outputs):
            rows = rng.standard_normal((*lead, size + 3, size))
            sums.append(np.swapaxes(rows, -1, -2) @ rows)
            rows = rng.standard_normal((*lead, size + 3, size)) / np.sqrt(size)
            inverses.append(np.swapaxes(rows, -1, -2) @ rows + 0.1 * np.eye(size))
        diagonals = [0.2 + abs(rng.standard_normal((*lead, size))) for size in (self.inputs, self.outputs)]
        traces = [1.0 + abs(rng.standard_normal((*lead, 1, 1))) for _ in range(3)]
        numbers = [np.array(self.counts), np.array(self.full), np.array(self.refreshes)]
        return [
            np.ascontiguousarray(array, np.float32).reshape(array.shape)
            for array in (*sums, *diagonals, *numbers, *inverses, *traces)
        ]


# Full and rank-one refreshes, of matrices that take one block and many, and more columns than one reading.
LAYERS = (
    RefreshedLayer(1100, 33),
    RefreshedLayer(5, 40, groups=3),
    RefreshedLayer(70, 1, full=1.0, refreshes=1.0),
    RefreshedLayer(6, 9, groups=2, full=1.0, refreshes=0.0, interval=2),
    RefreshedLayer(8, 7, full=1.0, counts=(0.0, 2.0, 1.5, 2.5), rescales=False),
    RefreshedLayer(9, 4, counts=(3.0, 2.0, 0.0, 0.0)),
    RefreshedLayer(12, 70, refreshes=3.0, interval=2),
    RefreshedLayer(7, 5, due=0),
    RefreshedLayer(11, 4, splits=False),
    RefreshedLayer(5, 8, full=1.0, refreshes=0.0, splits=False),
)


class ShermanMorrisonCase:
    """All layers in one call; with one `due` for all where they agree."""

    name = "ShermanMorrisonRefresh"

    def __init__(self, layers: Sequence[RefreshedLayer], rng: np.random.Generator) -> None:
        self.layers = layers
        dues = [layer.due for layer in layers]
        self.damping = np.array(0.05, np.float32)
        due = np.array(dues[0] if len(set(dues)) == 1 else dues, np.int32)
        self.inputs = [due, self.damping]
        for layer in layers:
            self.inputs += layer.draw(rng)
        self.outputs = [np.zeros(1, np.float32)]
        self.attributes: dict[str, Any] = {
            "layers": "\n".join(f"layer{index}" for index in range(len(layers))),
            "full_refreshes": [layer.full_refreshes for layer in layers],
            "interval": [layer.interval for layer in layers],
            "splits": [int(layer.splits) for layer in layers],
            "rescales": [int(layer.rescales) for layer in layers],
            "alpha": [layer.alpha for layer in layers],
            "beta": [layer.beta for layer in layers],
        }

    def arrays(self, of: Sequence[np.ndarray], layer: int) -> Arrays:
        """A layer's arrays by name, among those of a call."""
        first = 2 + layer * len(ARRAYS)
        return dict(zip(ARRAYS, of[first : first + len(ARRAYS)]))

    def check(self, found: Sequence[np.ndarray]) -> None:
        for index, layer in enumerate(self.layers):
            before, after = self.arrays(self.inputs, index), self.arrays(found, index)
            if not layer.due:
                unchanged(before, after, ARRAYS)
            else:
                check_layer(layer, before, after, float(self.damping), f"layer{index}")


def unchanged(before: Arrays, after: Arrays, names: Sequence[str]) -> None:
    """Fails if one of these arrays changed."""
    for name in names:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def check_layer(layer: RefreshedLayer, before: Arrays, after: Arrays, damping: float, what: str) -> None:
    """One layer that is due."""
    exact = {name: array.astype(np.float64) for name, array in before.items()}
    counts = exact["counts"]
    ready = exact["full"] > 0 and counts[0] * counts[1] > 0
    sizes = {"A": layer.inputs, "G": layer.outputs}
    traces: dict[str, np.ndarray] = {}
    for side, (letter, size) in enumerate(sizes.items()):
        if ready:
            factors = (exact[f"{letter}_sum"] / counts[side]).reshape(-1, size, size)
            traces[letter] = np.trace(factors, axis1=1, axis2=2)
        else:
            count = counts[2 + side]
            squares = exact[f"{letter}_diagonal"].reshape(-1, size) / (count if count else np.inf)
            traces[letter] = squares.sum(axis=1)
            inverses = [exact[f"{letter}_inverse"].reshape(-1, size, size), after[f"{letter}_inverse"]]
            weight = layer.beta if side else layer.alpha
            for group, X in enumerate(inverses[0]):
                found = inverses[1].reshape(-1, size, size)[group]
                check_rank_one(X, np.sqrt(squares[group]), weight, found, f"{what} {letter}")
                np.testing.assert_array_equal(found, found.T)
    known = layer.splits & (traces["A"] > 0) & (traces["G"] > 0)
    means = {letter: np.where(known, traces[letter] / sizes[letter], 1.0) for letter in sizes}
    pi = np.sqrt(means["A"] / means["G"])
    dampings = {"A": np.sqrt(damping) * pi, "G": np.sqrt(damping) / pi}
    if ready:
        for side, (letter, size) in enumerate(sizes.items()):
            factors = (exact[f"{letter}_sum"] / counts[side]).reshape(-1, size, size)
            for group, factor in enumerate(factors):
                found = after[f"{letter}_inverse"].reshape(-1, size, size)[group]
                check_inverse(factor + dampings[letter][group] * np.eye(size), found, f"{what} {letter}")
    check_numbers(layer, exact, after, ready, traces, dampings, what)
    check_schedule(layer, before, after, ready)


def check_rank_one(X: np.ndarray, u: np.ndarray, weight: float, found: np.ndarray, what: str) -> None:
    """X - (X u)(X u)' / (1 / weight + u' X u), with the error of each step to first order."""
    y, size = X @ u, len(u)
    share = 1 / (1 / np.float64(np.float32(weight)) + u @ y)
    # u has the roundings of the scale, its product and the root; then comes a sum of products.
    error = (size + 4) * ROUNDOFF * (abs(X) @ abs(u))
    of_share = share * (abs(u) @ error + 4 * ROUNDOFF * abs(u) @ abs(y)) + 2 * ROUNDOFF
    outer = np.outer(abs(y), abs(y))
    bound = share * (np.outer(error, abs(y)) + np.outer(abs(y), error) + outer * (of_share + 2 * ROUNDOFF))
    expected = X - share * np.outer(y, y)
    assert_within(found, expected, 1.1 * (bound + ROUNDOFF * abs(expected)), what)


def check_inverse(matrix: np.ndarray, found: np.ndarray, what: str) -> None:
    """An inverse by float32 elimination: rounding grows with the size and the condition number."""
    inverse = np.linalg.inv(matrix)
    bound = len(matrix) * np.linalg.cond(matrix) * ROUNDOFF * np.linalg.norm(inverse, 2)
    assert_within(found, inverse, bound + 2 * ROUNDOFF * abs(inverse).max(), what)


def check_numbers(
    layer: RefreshedLayer,
    exact: dict[str, np.ndarray],
    after: Arrays,
    ready: bool,
    traces: dict[str, np.ndarray],
    dampings: dict[str, np.ndarray],
    what: str,
) -> None:
    """Traces of the implied factors, and the scale; all terms are positive, so that errors are relative."""
    kept = {name: exact[name].reshape(-1) for name in ("A_trace", "G_trace", "scale")}
    target_A = traces["A"] + dampings["A"] * layer.inputs
    target_G = traces["G"] + dampings["G"] * layer.outputs
    if not layer.rescales:
        expected = kept
    elif ready:
        expected = {"A_trace": target_A, "G_trace": target_G, "scale": np.ones(layer.groups)}
    else:
        implied_A, implied_G = (
            kept["A_trace"] + layer.alpha * traces["A"],
            kept["G_trace"] + layer.beta * traces["G"],
        )
        seen = exact["counts"][2] * exact["counts"][3] > 0
        scale = implied_A / target_A * implied_G / target_G if seen else np.ones(layer.groups)
        expected = {"A_trace": implied_A, "G_trace": implied_G, "scale": scale}
    for name, value in expected.items():
        # At most a dozen roundings each: of options, scaled diagonals, damping and the numbers themselves.
        assert_within(after[name].reshape(-1), value, 16 * ROUNDOFF * abs(value), f"{what} {name}")


def check_schedule(layer: RefreshedLayer, before: Arrays, after: Arrays, ready: bool) -> None:
    """Refreshes so far, whether the coming one is full, and sums that start anew."""
    was_full = before["full"] > 0
    refreshes = float(before["refreshes"]) + (1 if ready or not was_full else 0)
    beyond = refreshes - layer.full_refreshes
    full = beyond < 0 or (layer.interval > 0 and beyond % (layer.interval + 1) == layer.interval)
    assert float(after["refreshes"]) == refreshes
    assert float(after["full"]) == float(full)
    unchanged(before, after, ("A_diagonal", "G_diagonal"))
    if layer.interval > 0 and full and not was_full:
        for name in ("A_sum", "G_sum"):
            assert not after[name].any()
        np.testing.assert_array_equal(after["counts"], [0, 0, *before["counts"][2:]])
    else:
        unchanged(before, after, ("A_sum", "G_sum", "counts"))
