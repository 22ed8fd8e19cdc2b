"""All layers preconditioned in one call: the kernel and the blocks' own form, against float64."""

from __future__ import annotations

import math
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor, nn, ops

import ms_kfac
from ms_kfac.curvature.kronecker import KroneckerBlock
from ms_kfac.ops.step import layer_precondition as module
from ms_kfac.ops.step.eigenbasis_precondition import EigenbasisForm
from ms_kfac.ops.step.skfac_precondition import SKFACForm
from ms_kfac.optim.preconditioner import Preconditioner, native_form
from tests.support.bank import Bank
from tests.support.native import needs_native

METHODS = {
    "kfac": lambda net: ms_kfac.KFAC(net, 0.1),
    "tkfac": lambda net: ms_kfac.TKFAC(net, 0.1),
    "smkfac": lambda net: ms_kfac.SMKFAC(net, 0.1, rescale="trace"),
    "ekfac": lambda net: ms_kfac.EKFAC(net, 0.1),
    "skfac": lambda net: ms_kfac.SKFAC(net, 0.1),
    "thor": lambda net: ms_kfac.THOR(net, 0.1, split=3),
}
needs_kernel = needs_native("kronecker_precondition")


def random_values(optimizer: Any, rng: np.random.Generator, *, measured: bool = True) -> tuple[Tensor, ...]:
    """Random inverses in the blocks, far from symmetric ones; random gradients."""
    for block in optimizer.blocks:
        form = native_form(block)
        if isinstance(form, SKFACForm):
            draw_solvers(block, form, rng, refreshed=measured)
            continue
        for parameter in () if form is None else form.parameters():
            value = rng.standard_normal(parameter.shape) / math.sqrt((1, *parameter.shape)[-1])
            if isinstance(form, EigenbasisForm) and all(parameter is not Q for Q in (form.Q_A, form.Q_G)):
                # Moments, eigenvalues, counts and dampings are positive; far enough from zero to divide by.
                value = 0.2 + np.abs(value)
                if parameter is form.counts or parameter is form.s_sum:
                    value = value * measured
            ops.assign(parameter, Tensor(value.astype(np.float32)))
    return tuple(Tensor(rng.standard_normal(p.shape).astype(np.float32)) for p in optimizer.parameters)


def draw_solvers(block: Any, form: SKFACForm, rng: np.random.Generator, *, refreshed: bool) -> None:
    """Random solvers of random ranks, those of the fallback included; as constructed if not `refreshed`."""
    chosen = []
    sides = ((form.A_solver, form.A_damping), (form.G_solver, form.G_damping))
    for solver, damping in sides:
        size = solver.shape[-1]
        chosen.append(int(rng.integers(1, size + 1)))
        value = rng.standard_normal(solver.shape) / math.sqrt(size)
        # Below the rank there is what the kernel must not read.
        value[..., chosen[-1] :, :] = np.nan
        if refreshed:
            ops.assign(solver, Tensor(value.astype(np.float32)))
            ops.assign(damping, Tensor((0.2 + rng.random(damping.shape)).astype(np.float32)))
    if refreshed:
        ops.assign(form.solver_ranks, Tensor(np.array(chosen, np.float32)))
    block.ranks.chosen = tuple(chosen)


def both_forms(optimizer: Any) -> tuple[Preconditioner, Preconditioner]:
    """The optimizer's own, which is native, and the fallback one over the same blocks."""
    arguments = (list(optimizer.blocks), optimizer.positions, len(optimizer.parameters))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "is_native", lambda name: False)
        fallback = Preconditioner(*arguments)
    native = Preconditioner(*arguments)
    assert not any(part.native for part in fallback.parts)
    return native, fallback


def block_diagonal(arrays: tuple[ms.Parameter, ...], group: int, groups: int) -> np.ndarray:
    """One side of a block's inverse as a single matrix, float64."""
    pieces = []
    for array in arrays:
        value = array.asnumpy().astype(np.float64)
        stack = value[group : group + 1] if groups > 1 else value.reshape(-1, *value.shape[-2:])
        pieces += list(stack)
    whole = np.zeros((sum(map(len, pieces)),) * 2)
    start = 0
    for piece in pieces:
        whole[start : start + len(piece), start : start + len(piece)] = piece
        start += len(piece)
    return whole


def reference(form: Any, groups: int, dW: np.ndarray, db: np.ndarray | None) -> list[np.ndarray]:
    """U of the weight and of the bias by the formula, in float64."""
    matrix = dW.astype(np.float64).reshape(groups, len(dW) // groups, -1)
    if db is not None:
        matrix = np.concatenate([matrix, db.astype(np.float64).reshape(groups, -1, 1)], axis=2)
    if isinstance(form, EigenbasisForm):
        U = in_eigenbasis(form, matrix)
    elif isinstance(form, SKFACForm):
        ranks = form.solver_ranks.asnumpy().astype(int)
        A = solver_inverse(form.A_solver, form.A_damping, ranks[0])
        U = solver_inverse(form.G_solver, form.G_damping, ranks[1]) @ matrix @ A
    else:
        scale = np.ones(groups) if form.scale is None else form.scale.asnumpy().reshape(-1)
        left, right = (
            np.stack([block_diagonal(side, group, groups) for group in range(groups)])
            for side in (form.left, form.right)
        )
        U = scale[:, None, None] * (left @ matrix @ right)
    return [U.reshape(dW.shape)] if db is None else [U[..., :-1].reshape(dW.shape), U[..., -1].reshape(-1)]


def in_eigenbasis(form: EigenbasisForm, matrix: np.ndarray) -> np.ndarray:
    """Q_G [(Q_G^T M Q_A) / (s + damping)] Q_A^T of every group, in float64."""
    values = [parameter.asnumpy().astype(np.float64) for parameter in form.parameters()]
    Q_A, Q_G, s_sum, counts, S_A, S_G, damping = values
    s = s_sum / counts[2] if counts[2] > 0 else S_G * S_A
    rotated = np.swapaxes(Q_G, -1, -2) @ matrix @ Q_A / (s + damping)
    product: np.ndarray = Q_G @ rotated @ np.swapaxes(Q_A, -1, -2)
    return product


def solver_inverse(solver: ms.Parameter, damping: ms.Parameter, rank: int) -> np.ndarray:
    """The inverse of a factor of every group, in float64."""
    size = solver.shape[-1]
    matrices = solver.asnumpy().astype(np.float64).reshape(-1, size, size)
    if rank == size:
        return matrices
    Z, D = matrices[:, :rank], damping.asnumpy().astype(np.float64).reshape(-1, 1, 1)
    inverse: np.ndarray = (np.eye(size) - np.swapaxes(Z, -1, -2) @ Z) / D
    return inverse


def assert_close(found: Tensor, expected: np.ndarray) -> None:
    """Sums of at most a few hundred float32 products: rounding stays far below 1e-5 of the largest entry."""
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


LAYERS = st.one_of(
    st.tuples(st.just("dense"), st.integers(1, 12), st.integers(1, 12), st.booleans()),
    st.tuples(st.just("convolution"), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(1, 3)),
)


def create(kind: str, inputs: int, outputs: int, bias: bool, groups: int = 1) -> nn.Cell:
    if kind == "dense":
        return nn.Dense(inputs, outputs, has_bias=bias)
    return nn.Conv2d(inputs * groups, outputs * groups, (2, 3), group=groups, has_bias=bias)


@needs_kernel
@settings(max_examples=30)
@given(
    layers=st.lists(LAYERS, min_size=1, max_size=4),
    method=st.sampled_from(sorted(METHODS)),
    measured=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_both_forms_are_the_formula(
    layers: list[tuple[Any, ...]], method: str, measured: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    optimizer = METHODS[method](Bank([create(*layer) for layer in layers]))
    gradients = random_values(optimizer, rng, measured=measured)
    for preconditioner in both_forms(optimizer):
        updates, products = preconditioner(gradients)
        found = dict(zip(preconditioner.order, zip(updates, products.asnumpy())))
        for block, positions in zip(optimizer.blocks, optimizer.positions):
            raw = [gradients[position].asnumpy() for position in positions]
            form = native_form(block)
            assert form is not None
            expected = reference(form, block.groups, raw[0], raw[1] if len(raw) > 1 else None)
            for position, gradient, U in zip(positions, raw, expected):
                update, product = found[position]
                assert_close(update, U)
                # An inner product may cancel; its rounding is that of its terms.
                assert abs(product - np.sum(gradient * U)) <= 1e-5 * np.sum(np.abs(gradient * U))


@needs_kernel
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_takes_one_kernel(mode: int, method: str, rng: np.random.Generator) -> None:
    net = Bank([nn.Dense(7, 5), nn.Conv2d(4, 6, 3, group=2, has_bias=True), nn.Dense(3, 4, has_bias=False)])
    optimizer = METHODS[method](net)
    gradients = random_values(optimizer, rng)
    assert [part.native for part in optimizer.preconditioner.parts] == [True]
    _, fallback = both_forms(optimizer)
    expected = dict(zip(fallback.order, fallback(gradients)[0]))
    for position, update in enumerate(optimizer.precondition(gradients)):
        assert_close(update, expected[position].asnumpy())


class Mixed(nn.Cell):
    """Blocks with a kernel and without, between first-order parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.normalization = nn.BatchNorm2d(4)
        self.dense = nn.Dense(6, 5)
        self.skipped = nn.Dense(5, 5)
        self.table = nn.Embedding(7, 3)
        self.last = nn.Dense(5, 2, has_bias=False)


@needs_kernel
def test_blocks_without_a_kernel_keep_their_place(mode: int, rng: np.random.Generator) -> None:
    optimizer = ms_kfac.KFAC(Mixed(), 0.1, normalization="unit_wise", skip=("skipped",))
    random_values(optimizer, rng)
    gradients = tuple(Tensor(rng.standard_normal(p.shape), p.dtype) for p in optimizer.parameters)
    native, fallback = both_forms(optimizer)
    assert [len(part.blocks) for part in native.parts] == [2, 2]
    assert [part.native for part in native.parts] == [True, False]
    expected, products = fallback(gradients)
    expected = dict(zip(fallback.order, expected))
    products = dict(zip(fallback.order, products.asnumpy()))
    found = optimizer.precondition(gradients)
    for position, product in zip(native.order, native(gradients)[1].asnumpy()):
        assert product == pytest.approx(products[position], rel=1e-4, abs=1e-5)
    for position, gradient in enumerate(gradients):
        assert_close(found[position], expected.get(position, gradient).asnumpy())


def test_a_relative_that_preconditions_otherwise_has_no_kernel() -> None:
    class Doubled(KroneckerBlock):
        def precondition(self, matrix: Tensor) -> Tensor:
            return super().precondition(matrix) * 2.0

    class Renamed(KroneckerBlock):
        pass

    net = Bank([nn.Dense(3, 2)])
    optimizer = ms_kfac.KFAC(net, 0.1)
    layer, options = optimizer._layers[0], optimizer.statistics_options
    assert native_form(Doubled(layer, prefix="doubled", options=options)) is None
    assert native_form(Renamed(layer, prefix="renamed", options=options)) is not None


@needs_kernel
def test_gradients_of_another_shape_are_refused() -> None:
    optimizer = ms_kfac.KFAC(Bank([nn.Dense(3, 2)]), 0.1)
    with pytest.raises(RuntimeError, match="KroneckerPrecondition"):
        updates, _ = optimizer.preconditioner((ops.ones((2, 4), ms.float32), ops.ones((2,), ms.float32)))
        updates[0].asnumpy()
