"""SKFAC's block against dense float64 algebra: factors, preconditioning, product and trace, in every form."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.ops.primitive import constexpr

import ms_kfac
from ms_kfac.ops.refresh import layer_refresh
from ms_kfac.ops.statistics.layer_statistics import STAGED_WEIGHTS, StatisticsOptions
from ms_kfac.ops.step import layer_precondition
from tests.oracle.factors import dense_factors
from tests.oracle.patches import Geometry
from tests.oracle.preconditioner import gradient_matrix
from tests.oracle.skfac import damped, precondition, precondition_matrix, reduced_conv_factors
from tests.support.bank import Bank, backward, convolution, linear_loss, randomise, tensor
from tests.support.native import skip_without_native

SAMPLES = 6


@dataclass(frozen=True)
class DenseCase:
    """A Dense layer on (N, *middle, d_in)."""

    d_in: int
    d_out: int
    bias: bool
    middle: tuple[int, ...] = ()


# With 6 samples: fewer rows than d on one side, on the other, on both, as many rows as d, and more; "sum" and
# "mean" bring 6 rows a convolution, the locations of (5, 40) bring 30 ("expand") or 6 ("reduce").
CASES: tuple[DenseCase | Geometry, ...] = (
    DenseCase(10, 4, True),
    DenseCase(6, 6, False),
    DenseCase(3, 8, False),
    DenseCase(40, 33, True, (5,)),
    DenseCase(4, 12, False, (2, 3)),
    Geometry(2, 3, (3, 2), (2, 1), "pad", (1, 0, 2, 1), bias=True, image=(6, 5)),
    Geometry(2, 8, (1, 1), (1, 2), "valid", image=(3, 4)),
    Geometry(4, 6, (3, 2), (2, 1), "same", groups=2, bias=True, image=(5, 4)),
    Geometry(2, 18, (1, 2), (1, 1), "valid", groups=2, image=(2, 3)),
)


# One layer of each kind that the reduction of locations concerns, with rows on either side of d.
SPATIAL_CASES = (CASES[3], CASES[5], CASES[7])
# Rows and a sum, for a dense layer and for groups.
FEW_CASES = (CASES[0], CASES[7])


def build(
    rng: np.random.Generator, cases: Sequence[DenseCase | Geometry]
) -> tuple[Bank, list[np.ndarray], list[np.ndarray]]:
    """A net of the cases, its inputs and its coefficients."""
    layers, x, c = [], [], []
    for case in cases:
        if isinstance(case, DenseCase):
            layers.append(nn.Dense(case.d_in, case.d_out, has_bias=case.bias))
            x.append(rng.standard_normal((SAMPLES, *case.middle, case.d_in)))
            c.append(rng.standard_normal((SAMPLES, *case.middle, case.d_out)))
        else:
            layers.append(convolution(case, rng))
            x.append(rng.standard_normal((SAMPLES, case.in_channels, *case.image)))
            c.append(rng.standard_normal((SAMPLES, case.out_channels, *case.output_size())))
    net = Bank(layers)
    randomise(net, rng)
    return net, x, c


def exact_factors(
    cases: Sequence[DenseCase | Geometry],
    x: Sequence[np.ndarray],
    g: Sequence[np.ndarray],
    spatial: str = "sum",
    sharing: str = "expand",
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(A, G) of every case."""
    found = []
    for case, a, dy in zip(cases, x, g):
        if isinstance(case, DenseCase):
            found.append(dense_factors(a, dy, case.bias, sharing))
        else:
            found.append(reduced_conv_factors(a, dy, case, "all" if spatial == "subsample" else spatial))
    return found


def assert_blocks(
    optimizer: ms_kfac.SKFAC,
    gradients: tuple[ms.Tensor, ...],
    expected: list[tuple[np.ndarray, np.ndarray]],
    damping: float,
    split: bool = False,
) -> None:
    """Factors and preconditioned gradients of every layer."""
    raw = {p.name: g.asnumpy() for p, g in zip(optimizer.parameters, gradients)}
    found = dict(zip(raw, (u.asnumpy() for u in optimizer.precondition(gradients))))
    for i, (A, G) in enumerate(expected):
        name = f"layers.{i}"
        factors = optimizer.factors(name)
        # Sums of at most 60 products of float32 numbers that may themselves be sums over 30 locations.
        for letter, exact in (("A", A), ("G", G)):
            np.testing.assert_allclose(
                factors[letter], exact, rtol=0, atol=5e-6 * np.abs(exact).max(), err_msg=f"{name} {letter}"
            )
        weight, bias = f"{name}.weight", f"{name}.bias"
        U, u = precondition(raw[weight], raw.get(bias), A, G, damping, split)
        A_damped, G_damped = damped(A, G, damping, split)
        condition = np.linalg.cond(A_damped).max() * np.linalg.cond(G_damped).max()
        tolerance = max(1e-5, 4 * 1.2e-7 * condition) * np.abs(U).max()
        assert tolerance < 0.02 * np.abs(U).max(), "the case is too ill-conditioned to test anything"
        np.testing.assert_allclose(found[weight], U, rtol=0, atol=tolerance, err_msg=weight)
        if u is not None:
            np.testing.assert_allclose(found[bias], u, rtol=0, atol=tolerance, err_msg=bias)


class Algebra(nn.Cell):
    """`product`, `trace` and `observed` of all blocks in one compiled function."""

    def __init__(self, blocks: nn.CellList) -> None:
        super().__init__(auto_prefix=False)
        self.blocks = nn.CellList(list(blocks), auto_prefix=False)

    @ms.jit
    def construct(self, matrices: tuple[ms.Tensor, ...]) -> tuple[tuple[ms.Tensor, ...], ...]:
        results = ()
        for i in range(len(self.blocks)):
            block = self.blocks[i]
            observed = (block.current_estimate(0)[0], block.current_estimate(1)[0])
            results = (*results, (block.multiply(matrices[i]), block.trace(), *observed))
        return results


def assert_algebra(
    optimizer: ms_kfac.SKFAC, expected: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator
) -> None:
    """What policies and damping rules ask of the undamped blocks."""
    matrices = [rng.standard_normal((*G.shape[:-1], A.shape[-1])) for A, G in expected]
    found = Algebra(optimizer.blocks)(tuple(tensor(m) for m in matrices))
    for (A, G), matrix, (product, trace, *observed) in zip(expected, matrices, found):
        exact = G @ matrix @ A
        # Two float32 products of at most 41 terms each, of factors that are sums themselves.
        np.testing.assert_allclose(product.asnumpy(), exact, rtol=0, atol=2e-5 * np.abs(exact).max())
        traces = np.trace(A, axis1=-2, axis2=-1) * np.trace(G, axis1=-2, axis2=-1)
        assert float(trace.asnumpy()) == pytest.approx(float(np.sum(traces)), rel=1e-5)
        for estimate, factor in zip(observed, (A, G)):
            np.testing.assert_allclose(estimate.asnumpy(), factor, rtol=0, atol=5e-6 * np.abs(factor).max())


def test_equals_the_dense_solve(mode: int, rng: np.random.Generator) -> None:
    """Every case, and which form it takes."""
    net, x, c = build(rng, CASES)
    optimizer = ms_kfac.SKFAC(net, 0.1, damping=1.0)
    assert optimizer.blocks[0].dimensions() == "A 11, G 4 (chosen at the first step)"
    gradients = backward(linear_loss(net, c), optimizer.parameters, *x)
    optimizer(gradients)
    expected = exact_factors(CASES, x, c)
    assert_blocks(optimizer, gradients, expected, 1.0)
    assert_algebra(optimizer, expected, rng)
    forms = [block.dimensions() for block in optimizer.blocks]
    assert forms[0] == "A 11 (Woodbury, rank 6), G 4 (Cholesky)"
    assert forms[1] == "A 6 (Cholesky), G 6 (Cholesky)"
    assert forms[3] == "A 41 (Woodbury, rank 30), G 33 (Woodbury, rank 30)"
    assert forms[7] == "2 x A 13 (Woodbury, rank 6), G 3 (Cholesky)"


def test_other_ways_to_reduce_locations(mode: int, rng: np.random.Generator) -> None:
    """One a mode: the code is the same in both, and "sum" above runs in either."""
    spatial, sharing = ("mean", "reduce") if mode == ms.GRAPH_MODE else ("subsample", "expand")
    net, x, c = build(rng, SPATIAL_CASES)
    # More samples than there are locations: all of them count.
    optimizer = ms_kfac.SKFAC(net, 0.1, spatial=spatial, samples=1000, sharing=sharing, damping=1e-2)
    gradients = backward(linear_loss(net, c), optimizer.parameters, *x)
    optimizer(gradients)
    assert_blocks(optimizer, gradients, exact_factors(SPATIAL_CASES, x, c, spatial, sharing), 1e-2)
    forms = [block.dimensions() for block in optimizer.blocks]
    rows = 6 if sharing == "reduce" else 30
    assert forms[0] == f"A 41 (Woodbury, rank {rows}), G 33 (Woodbury, rank {rows})"
    assert ("Woodbury" in forms[2]) == (spatial == "mean")


def test_damping_split_by_traces(mode: int, rng: np.random.Generator) -> None:
    """π√λ on A, √λ/π on G, group by group, in Woodbury's form and in Cholesky's."""
    net, x, c = build(rng, CASES)
    optimizer = ms_kfac.SKFAC(net, 0.1, damping=1.0, damping_split="pi")
    gradients = backward(linear_loss(net, c), optimizer.parameters, *x)
    optimizer(gradients)
    assert_blocks(optimizer, gradients, exact_factors(CASES, x, c), 1.0, split=True)
    assert "damping split by pi" in repr(optimizer)


class Noting(nn.Cell):
    """Passes a matrix on to a decomposition and notes, when that is compiled, how large it is."""

    def __init__(self, decomposition: object, sizes: list[int]) -> None:
        super().__init__(auto_prefix=False)
        self.decomposition = decomposition
        self.shape = ms.ops.Shape()

        def note(shape: tuple[int, ...]) -> bool:
            sizes.append(shape[-1])
            return True

        self.note = constexpr(fn=note, reuse_result=False)

    def construct(self, matrix: ms.Tensor) -> ms.Tensor:
        self.note(self.shape(matrix))
        return self.decomposition(matrix)


def test_woodbury_decomposes_small_matrices_only(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The native form does not pass by the operators that are watched here.
    monkeypatch.setattr(layer_refresh, "is_native", lambda operator: False)
    net = Bank([nn.Dense(50, 40), nn.Dense(50, 4)])
    sizes: dict[str, list[int]] = {}
    optimizer = ms_kfac.SKFAC(net, 0.1)
    for block in optimizer.blocks:
        noted = sizes.setdefault(block.layer_name, [])
        for operator in (block.layer_refresh.damped_inverse, block.layer_refresh.low_rank_inverse):
            operator.cholesky = Noting(operator.cholesky, noted)
    x = [rng.standard_normal((SAMPLES, 50)) for _ in range(2)]
    c = [rng.standard_normal((SAMPLES, d)) for d in (40, 4)]
    optimizer(backward(linear_loss(net, c), optimizer.parameters, *x))
    assert {name: sorted(set(noted)) for name, noted in sizes.items()} == {
        "layers.0": [SAMPLES],
        "layers.1": [4, SAMPLES],
    }


def take(arrays: list[np.ndarray], start: int, stop: int) -> list[np.ndarray]:
    return [array[start:stop] for array in arrays]


def test_batches_of_other_sizes(mode: int, rng: np.random.Generator) -> None:
    """Smaller ones are exact, without rows of the batch before; of larger ones the rows that fit count."""
    net, x, c = build(rng, FEW_CASES)
    damping = 10.0
    optimizer = ms_kfac.SKFAC(net, 0.1, damping=damping, factor_interval=1, inverse_interval=1)
    for samples in (3, 2):
        some_x, some_c = take(x, 0, samples), take(c, 0, samples)
        gradients = backward(linear_loss(net, some_c), optimizer.parameters, *some_x)
        optimizer(gradients)
        assert_blocks(optimizer, gradients, exact_factors(FEW_CASES, some_x, some_c), damping)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        gradients = backward(linear_loss(net, c), optimizer.parameters, *x)
    messages = [str(w.message) for w in caught if "curvature" in str(w.message)]
    assert any("layers.0" in message and "6 rows" in message for message in messages)
    optimizer(gradients)
    expected = []
    part = exact_factors(FEW_CASES, take(x, 0, 3), take(c, 0, 3))
    for block, few, all_rows in zip(optimizer.blocks, part, exact_factors(FEW_CASES, x, c)):
        # Three samples' rows stand for six where a factor is kept as rows; where it is a sum all six count.
        dimensions = (block.dim_A, block.dim_G)
        pair = [p if r < d else w for p, w, r, d in zip(few, all_rows, block.ranks.chosen, dimensions)]
        expected.append((pair[0], pair[1]))
    assert_blocks(optimizer, gradients, expected, damping)


def test_micro_batches_equal_one_batch(mode: int, rng: np.random.Generator) -> None:
    """Two backward passes of unequal size, their losses divided by 2, under a loss scale or summed.

    Mean losses weigh a sample by its micro-batch: the gradients' sum is then no batch's gradient, but the
    factors are those of all rows together. One reduction a mode.
    """
    reduction, scale = ("mean", 1024.0) if mode == ms.GRAPH_MODE else ("sum", 1.0)
    net, x, c = build(rng, FEW_CASES)
    optimizer = ms_kfac.SKFAC(
        net, 0.1, damping=1.0, accumulation_steps=2, loss_scale=scale, reduction=reduction
    )
    for start, stop in ((0, 4), (4, 6)):
        share = 0.5 * scale / (stop - start if reduction == "mean" else 1)
        loss = linear_loss(net, take(c, start, stop), share)
        gradients = backward(loss, optimizer.parameters, *take(x, start, stop))
    # The gradient of the last micro-batch alone.
    with pytest.warns(UserWarning, match="do not belong to the delivered gradient"):
        optimizer(gradients)
    assert_blocks(optimizer, gradients, exact_factors(FEW_CASES, x, c), 1.0)


@pytest.mark.parametrize("rank", ["full", "low"])
def test_layers_that_no_pass_has_reached_stay_as_they_are(rank: str, rng: np.random.Generator) -> None:
    """With the inverses as constructed, and with inverses of nothing."""
    net, _, _ = build(rng, FEW_CASES)
    optimizer = ms_kfac.SKFAC(net, 0.1, damping=0.1)
    if rank == "low":
        for block in optimizer.blocks:
            block.ranks.for_statistics(2)
    gradients = tuple(tensor(rng.standard_normal(p.shape)) for p in optimizer.parameters)
    with pytest.warns(UserWarning, match="no backward pass reached the statistics"):
        for _ in range(2):
            for before, after in zip(gradients, optimizer.precondition(gradients)):
                np.testing.assert_array_equal(after.asnumpy(), before.asnumpy())
            optimizer(gradients)
    assert all(not factor.any() for factor in optimizer.factors("layers.0").values())
    low = ["Woodbury, rank 2" in block.dimensions() for block in optimizer.blocks]
    assert low == [rank == "low"] * 2


@pytest.mark.parametrize("native", [True, False], ids=["native", "fallback"])
def test_the_optimizer_compiled_before_any_pass(
    native: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fallback needs a rank then, and takes the full one; the kernel reads the ranks when it runs."""
    if native:
        skip_without_native("skfac_precondition")
    else:
        for module in (layer_refresh, layer_precondition):
            monkeypatch.setattr(module, "is_native", lambda operator: False)
    net, x, c = build(rng, FEW_CASES)
    optimizer = ms_kfac.SKFAC(net, 0.1, damping=1.0)
    optimizer.precondition(tuple(tensor(np.ones(p.shape)) for p in optimizer.parameters))
    gradients = backward(linear_loss(net, c), optimizer.parameters, *x)
    optimizer(gradients)
    assert all(("Woodbury" in block.dimensions()) == native for block in optimizer.blocks)
    assert_blocks(optimizer, gradients, exact_factors(FEW_CASES, x, c), 1.0)


LOCATIONS = 8


def counted(optimizer: ms_kfac.SKFAC, samples: int) -> list[np.ndarray]:
    """How often each location was drawn, by layer: one-hot columns make A and G diagonal."""
    found = []
    for i in range(2):
        factors = optimizer.factors(f"layers.{i}")
        counts = np.diag(factors["G"]) * SAMPLES * samples
        for letter, scale in (("A", LOCATIONS), ("G", 1)):
            # A = T/(N s) Σ p pᵀ and G = 1/(N s) Σ g gᵀ over the same locations.
            expected = np.diag(counts) * scale / (SAMPLES * samples)
            np.testing.assert_allclose(factors[letter], expected, rtol=1e-5, atol=1e-7)
        found.append(np.rint(counts).astype(int))
        np.testing.assert_allclose(counts, found[-1], atol=1e-5)
        assert counts.max() <= SAMPLES, "a location was drawn twice for one sample"
        assert found[-1].sum() == SAMPLES * samples
    return found


def test_subsampling_draws_the_same_locations_for_both_factors(mode: int) -> None:
    """1 row per sample is kept as rows (6 < 8), 3 are summed (18); the draws differ by step and by layer."""
    samples = 1 if mode == ms.GRAPH_MODE else 3
    ms.set_seed(7)
    net = Bank([nn.Conv2d(LOCATIONS, LOCATIONS, 1, pad_mode="valid") for _ in range(2)])
    optimizer = ms_kfac.SKFAC(net, 0.1, spatial="subsample", samples=samples, factor_interval=1)
    eye = np.eye(LOCATIONS, dtype=np.float32).reshape(1, LOCATIONS, 2, 4)
    one_hot = np.repeat(eye, SAMPLES, axis=0)
    gradient = ms.value_and_grad(linear_loss(net, [one_hot] * 2), None, optimizer.parameters)
    draws = []
    for _ in range(6):
        optimizer(gradient(tensor(one_hot), tensor(one_hot))[1])
        draws.append(counted(optimizer, samples))
    assert len({tuple(draw[0]) for draw in draws}) > 3
    assert any(tuple(first) != tuple(second) for first, second in draws)
    assert ("Woodbury" in optimizer.summary()) == (samples == 1)


def test_statistics_of_inputs_and_gradients_separately(rng: np.random.Generator) -> None:
    """A policy may refresh A and G at steps of their own: the gate's codes 1, 2 and 3."""
    net = Bank([nn.Dense(10, 4), nn.Conv2d(3, 9, 2, pad_mode="valid")])
    optimizer = ms_kfac.SKFAC(net, 0.1)
    x = [rng.standard_normal((SAMPLES, 10)), rng.standard_normal((SAMPLES, 3, 3, 3))]
    dout = [rng.standard_normal((SAMPLES, 4)), rng.standard_normal((SAMPLES, 9, 2, 2))]
    options = StatisticsOptions("expand", mean_reduction=False, gradient_scale=1.0, separate=True)
    for i, block in enumerate(optimizer.blocks):
        layer = optimizer._layers[i]
        operator = type(block.operator)(layer.operators, 1, options, optimizer.skfac_options, block.ranks)
        written = []
        for code in (0, 1, 2, 3):
            gate = ms.Parameter(ms.Tensor(code, ms.int32), name=f"gate{i}{code}")
            operator.as_graph(tensor(x[i]), tensor(dout[i]), gate, *block.staged)
            written.append(block.record.asnumpy()[STAGED_WEIGHTS : STAGED_WEIGHTS + 2].tolist())
        assert written == [[0, 0], [SAMPLES, 0], [0, SAMPLES], [SAMPLES, SAMPLES]]


def test_reference_solves_the_kronecker_system(rng: np.random.Generator) -> None:
    """The oracle itself: (A_damped ⊗ G_damped) vec U = vec dW."""
    A, G = (b @ b.T for b in (rng.standard_normal((4, 2)), rng.standard_normal((3, 2))))
    dW = gradient_matrix(rng.standard_normal((3, 3)), rng.standard_normal(3))
    A_damped, G_damped = A + 0.3 * np.eye(4), G + 0.3 * np.eye(3)
    dense = np.linalg.solve(np.kron(A_damped, G_damped), dW.reshape(-1, order="F"))
    found = precondition_matrix(dW, A, G, 0.09)
    np.testing.assert_allclose(found, dense.reshape(dW.shape, order="F"), rtol=1e-10)
