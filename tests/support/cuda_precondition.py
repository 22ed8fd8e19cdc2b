"""Cases and oracles of the CUDA operators that precondition gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.cuda_cases import ROUNDOFF, assert_within
from tests.support.cuda_statistics import ROUNDOFF as UNIT_ROUNDOFF
from tests.support.cuda_updates import normal

# A value and the sum of the absolute values of what it is a sum of.
Bounded = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PreconditionedLayer:
    """A layer's sizes, a group's; `left` and `right` are sizes and numbers of THOR's diagonal blocks."""

    rows: int
    columns: int
    bias: bool = True
    groups: int = 1
    scaled: bool = False
    left: tuple[tuple[int, int], ...] = ()
    right: tuple[tuple[int, int], ...] = ()

    @property
    def width(self) -> int:
        """Columns with the bias's."""
        return self.columns + self.bias


# Tiles of 64 and of 128, more than one of them; biases at the end of a block and in a block of their own.
LAYERS = (
    PreconditionedLayer(7, 10),
    PreconditionedLayer(130, 200, scaled=True),
    PreconditionedLayer(66, 129, bias=False),
    PreconditionedLayer(5, 12, groups=3, scaled=True),
    PreconditionedLayer(1, 9, groups=4, bias=False),
    PreconditionedLayer(8, 10, left=((3, 2), (2, 1)), right=((4, 2), (3, 1))),
    PreconditionedLayer(4, 8, left=((4, 1),), right=((4, 2), (1, 1))),
    PreconditionedLayer(9, 6, left=((2, 4), (1, 1)), right=((3, 2),), bias=False),
)
SMALL = LAYERS[3:]
# Those without diagonal blocks.
WHOLE = LAYERS[:5]


class PreconditionCase:
    """Layers in one call, their gradients in another order than theirs and one more among them."""

    name: str

    def __init__(
        self, layers: Sequence[PreconditionedLayer], rng: np.random.Generator, precision: str = "float32"
    ) -> None:
        self.layers, self.precision = layers, precision
        own = [
            normal(rng, shape)
            for layer in layers
            for shape in ((layer.groups * layer.rows, layer.columns), (layer.groups * layer.rows,))[
                : 1 + layer.bias
            ]
        ]
        order = [int(place) for place in rng.permutation(len(own))]
        self.positions = [1 + place for place in order]
        gradients: list[np.ndarray] = [normal(rng, (3,))] + [own[0]] * len(own)
        for position, gradient in zip(self.positions, own):
            gradients[position] = gradient
        self.gradients = own
        self.arrays = [self.draw(layer, rng) for layer in layers]
        self.inputs = [*gradients, *(array for arrays in self.arrays for array in arrays)]
        self.outputs = [np.full(g.shape, np.nan, np.float32) for g in own]
        self.outputs.append(np.full(len(own), np.nan, np.float32))
        self.attributes: dict[str, Any] = {
            "gradients": len(gradients),
            "positions": self.positions,
            "groups": [layer.groups for layer in layers],
            "biases": [int(layer.bias) for layer in layers],
            "precision": precision,
        }

    def rounding(self, depth: int) -> float:
        """Largest error of two products in a row, relative to those of the absolute values.

        Args:
            depth: terms per sum, of both.
        """
        operands = (1 + UNIT_ROUNDOFF["tf32"]) ** 4 - 1 if self.precision == "tf32" else 0.0
        return 1.01 * depth * ROUNDOFF + operands

    def draw(self, layer: PreconditionedLayer, rng: np.random.Generator) -> list[np.ndarray]:
        """The operator's own arrays for a layer."""
        raise NotImplementedError

    def expected(self, layer: PreconditionedLayer, arrays: list[np.ndarray], matrix: np.ndarray) -> Bounded:
        """U of every group and the largest error of its entries."""
        raise NotImplementedError

    def check(self, found: Sequence[np.ndarray]) -> None:
        outputs = found[len(self.inputs) :]
        index = 0
        for number, layer in enumerate(self.layers):
            parts = 1 + layer.bias
            dW, updates = self.gradients[index], outputs[index : index + parts]
            matrix = dW.astype(np.float64).reshape(layer.groups, layer.rows, layer.columns)
            U = updates[0].reshape(matrix.shape)
            if layer.bias:
                db = self.gradients[index + 1].reshape(layer.groups, layer.rows, 1)
                matrix = np.concatenate([matrix, db], axis=2)
                U = np.concatenate([U, updates[1].reshape(layer.groups, layer.rows, 1)], axis=2)
            expected, bound = self.expected(layer, self.arrays[number], matrix)
            assert_within(U, expected, bound, f"layer {number}")
            for part in range(parts):
                terms = self.gradients[index + part].astype(np.float64) * updates[part]
                # A thread adds up at most 64 products in float32.
                assert_within(
                    outputs[-1][index + part],
                    np.sum(terms),
                    66 * ROUNDOFF * np.sum(abs(terms)),
                    f"product {index + part}",
                )
            index += parts


def block_diagonal(arrays: Sequence[np.ndarray], group: int, groups: int) -> np.ndarray:
    """One side of a layer's inverse as a single matrix, float64."""
    pieces: list[np.ndarray] = []
    for array in arrays:
        stack = array.astype(np.float64).reshape(-1, *array.shape[-2:])
        pieces += list(stack[group : group + 1] if groups > 1 else stack)
    whole = np.zeros((sum(map(len, pieces)),) * 2)
    start = 0
    for piece in pieces:
        whole[start : start + len(piece), start : start + len(piece)] = piece
        start += len(piece)
    return whole


class KroneckerCase(PreconditionCase):
    """Inverses that are not symmetric, so that no order of factors or indices goes unnoticed."""

    name = "KroneckerPrecondition"

    def __init__(
        self, layers: Sequence[PreconditionedLayer], rng: np.random.Generator, precision: str = "float32"
    ) -> None:
        super().__init__(layers, rng, precision)
        self.attributes.update(
            left_arrays=[max(len(layer.left), 1) for layer in layers],
            right_arrays=[max(len(layer.right), 1) for layer in layers],
            scales=[int(layer.scaled) for layer in layers],
        )

    def draw(self, layer: PreconditionedLayer, rng: np.random.Generator) -> list[np.ndarray]:
        """G^-1, A^-1 and the scale."""
        arrays = []
        for blocks, size in ((layer.left, layer.rows), (layer.right, layer.width)):
            shapes = [(count, side, side) if count > 1 else (side, side) for side, count in blocks]
            if layer.groups > 1:
                shapes = [(layer.groups, size, size)]
            arrays += [normal(rng, shape) for shape in shapes or [(size, size)]]
        scale = [normal(rng, (layer.groups, 1, 1))] if layer.scaled else []
        return [*arrays, *scale]

    def expected(self, layer: PreconditionedLayer, arrays: list[np.ndarray], matrix: np.ndarray) -> Bounded:
        """U = c G^-1 dW A^-1."""
        lefts = max(len(layer.left), 1)
        rights = arrays[lefts : len(arrays) - layer.scaled]
        scale = arrays[-1].astype(np.float64) if layer.scaled else np.ones((1, 1, 1))
        left, right = (
            np.stack([block_diagonal(side, group, layer.groups) for group in range(layer.groups)])
            for side in (arrays[:lefts], rights)
        )
        bound = abs(scale) * (abs(left) @ abs(matrix) @ abs(right))
        # Both products, and the scale.
        return scale * (left @ matrix @ right), (
            self.rounding(layer.rows + layer.width) + 2 * ROUNDOFF
        ) * bound


class SKFACCase(PreconditionCase):
    """Solvers of all ranks in turn: few rows, one tile and more of them, dense, and none yet."""

    name = "SKFACPrecondition"

    def __init__(
        self, layers: Sequence[PreconditionedLayer], rng: np.random.Generator, precision: str = "float32"
    ) -> None:
        self.drawn = 0
        super().__init__(layers, rng, precision)

    def draw(self, layer: PreconditionedLayer, rng: np.random.Generator) -> list[np.ndarray]:
        """Solvers, dampings and ranks."""
        lead = (layer.groups,) if layer.groups > 1 else ()
        solvers, ranks = [], []
        for size in (layer.width, layer.rows):
            # A rank of size + 1 stands for none yet.
            rank = (1, size // 2, size - 1, size, size + 1)[self.drawn % 5]
            self.drawn += 1
            solver = normal(rng, (*lead, size, size))
            solver += np.swapaxes(solver, -1, -2)
            solver[..., rank:, :] = np.nan
            solvers.append(solver)
            ranks.append(0 if rank > size else rank)
        dampings = [0.3 + abs(normal(rng, (*lead, 1, 1))) for _ in range(2)]
        return [*solvers, *dampings, np.array(ranks, np.float32)]

    def expected(self, layer: PreconditionedLayer, arrays: list[np.ndarray], matrix: np.ndarray) -> Bounded:
        """U = G^-1 dW A^-1."""
        U, error = matrix, np.zeros_like(matrix)
        for side in (0, 1):
            solver = arrays[side].astype(np.float64).reshape(layer.groups, *arrays[side].shape[-2:])
            size, rank = solver.shape[-1], int(arrays[4][side])
            Z, D = solver[:, :rank], arrays[2 + side].astype(np.float64).reshape(-1, 1, 1)
            terms = solver if rank == size else (np.eye(size) - np.swapaxes(Z, -1, -2) @ Z) / D
            sizes = abs(solver) if rank == size else (np.eye(size) + abs(np.swapaxes(Z, -1, -2)) @ abs(Z)) / D
            # Two products, a difference and a quotient.
            rounding = self.rounding(size + rank) + 3 * ROUNDOFF
            if side == 0:
                U, error = U @ terms, (error + rounding * (abs(U) + error)) @ sizes
            else:
                U, error = terms @ U, sizes @ (error + rounding * (abs(U) + error))
        return U, error


class EigenbasisCase(PreconditionCase):
    """Bases that are not orthogonal; layers with second moments and, in turn, without."""

    name = "EigenbasisPrecondition"

    def __init__(
        self, layers: Sequence[PreconditionedLayer], rng: np.random.Generator, precision: str = "float32"
    ) -> None:
        self.measured = True
        super().__init__(layers, rng, precision)

    def draw(self, layer: PreconditionedLayer, rng: np.random.Generator) -> list[np.ndarray]:
        """Q_A, Q_G, the sums of s, counts, S_A, S_G and the damping."""
        lead = (layer.groups,) if layer.groups > 1 else ()
        bases = [normal(rng, (*lead, size, size)) for size in (layer.width, layer.rows)]
        shapes = [(*lead, layer.rows, layer.width), (*lead, 1, layer.width), (*lead, layer.rows, 1)]
        moments, *values = (0.1 + abs(normal(rng, shape)) for shape in shapes)
        self.measured = not self.measured
        counts = np.array([3.0, 2.0, 1.7 if self.measured else 0.0], np.float32)
        return [*bases, moments, counts, *values, np.array(0.3, np.float32)]

    def expected(self, layer: PreconditionedLayer, arrays: list[np.ndarray], matrix: np.ndarray) -> Bounded:
        """U = Q_G [(Q_G' dW Q_A) / (s + damping)] Q_A'."""
        sums, counts, S_A, S_G, damping = (array.astype(np.float64) for array in arrays[2:])
        Q_A = arrays[0].astype(np.float64).reshape(layer.groups, layer.width, layer.width)
        Q_G = arrays[1].astype(np.float64).reshape(layer.groups, layer.rows, layer.rows)
        s = (sums / counts[2] if counts[2] > 0 else S_G * S_A).reshape(matrix.shape) + damping
        Q_At, Q_Gt = np.swapaxes(Q_A, 1, 2), np.swapaxes(Q_G, 1, 2)
        of_products = self.rounding(layer.rows + layer.width)
        rotated = Q_Gt @ matrix @ Q_A / s
        # Two products, three roundings of s + damping and the division.
        error = (of_products + 4 * ROUNDOFF) * (abs(Q_Gt) @ abs(matrix) @ abs(Q_A)) / s
        bound = abs(Q_G) @ (error + of_products * (abs(rotated) + error)) @ abs(Q_At)
        return Q_G @ rotated @ Q_At, bound
