"""The CUDA operator of EKFAC statistics on the emulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary, AotOperator
from tests.support.cuda_statistics import LAYERS, Batch, Layer

FLOAT = 2.0**-24


class Statistics(Batch):
    """The operator's arrays for one layer."""

    def __init__(self, layer: Layer, rng: np.random.Generator) -> None:
        super().__init__(layer, rng, weights=3)
        # The moments use every location, even if the factors reduce them.
        self.vectors = layer.all_vectors(self.x, self.dout)
        self.bases = [_basis(rng, *vectors.shape[::3]) for vectors in self.vectors]
        groups, e, d = len(self.a), self.g.shape[3], self.a.shape[3]
        self.moments = rng.uniform(0, 1, (groups, e, d)).astype(np.float32)
        self.moments_before = self.moments.copy()

    def operator(self, library: AotLibrary, **attributes: object) -> AotOperator:
        inputs = [self.x, self.dout, self.gate, *self.sums, self.record, *self.bases, self.moments]
        own = {"separate": False, "precision": "float32", **self.layer.attributes(), **attributes}
        return library.operator("EigenbasisStatistics", inputs, [self.output], **own)

    def check_factor(self, side: int, precision: str = "float32", calls: int = 1) -> None:
        self.check_sum(side, (self.a, self.g)[side], precision, calls)

    def check_passes(self, opened: str = "AGs", calls: int = 1) -> None:
        weights = (self.weight(0), self.weight(1), float(self.layer.samples))
        self.check_record([weight * (letter in opened) for letter, weight in zip("AGs", weights)], calls)

    def check_moments(self, calls: int = 1) -> None:
        """Compares s with float64.

        M_n = Q_G' W_n Q_A is a sum of products g q a q. In any order of summation its error is at most one
        roundoff per addition and product, u (T + d + e + 8), times the same sum of absolute values. The
        square doubles this error relative to |M| |M|'. Each addition over samples adds one roundoff.
        """
        a, g = self.vectors
        Q_A, Q_G = (basis.astype(np.float64) for basis in self.bases)
        M = np.einsum("gki,gntk,gntl,glj->gnij", Q_G, g, a, Q_A, optimize=True)
        bound = np.einsum("gki,gntk,gntl,glj->gnij", *map(abs, (Q_G, g, a, Q_A)), optimize=True)
        _, samples, locations, d = a.shape
        expected = calls * (M**2).sum(axis=1)
        steps = (locations + d + g.shape[3] + 8) * FLOAT
        of_products = calls * ((2 * abs(M) + steps * bound) * steps * bound).sum(axis=1)
        of_sums = (calls * samples + 4) * FLOAT * expected
        error = abs(self.moments - expected)
        allowed = of_products + of_sums
        assert (error <= allowed).all(), (error / allowed).max()
        # The tolerance must be small next to the expected value, or wrong moments could pass.
        assert allowed.sum() < 0.2 * expected.sum()

    def check_moments_untouched(self) -> None:
        np.testing.assert_array_equal(self.moments, self.moments_before)


# Cases that LAYERS lacks: both orders of products, tiles of both sizes, rows and patches, in groups.
OTHERS = {
    "dense_gradient_first": Layer(20, 12, samples=6, locations=(5, 8), bias=True),
    "dense_halves": Layer(20, 12, samples=6, locations=(5, 8), dtype="float16"),
    "conv_vectors_first": Layer(
        24, 65, kernel=(3, 3), padding=(1, 1, 1, 1), samples=10, bias=True, dtype="float16"
    ),
    "conv_groups_vectors_first": Layer(40, 36, kernel=(3, 2), groups=2, size=(4, 3), samples=4, bias=True),
    "conv_gradient_first": Layer(
        9, 66, kernel=(3, 3), stride=(1, 2), padding=(1, 1, 1, 1), samples=6, size=(9, 16)
    ),
}


def _basis(rng: np.random.Generator, groups: int, size: int) -> np.ndarray:
    """Orthogonal matrices, one per group."""
    return np.linalg.qr(rng.standard_normal((groups, size, size)))[0].astype(np.float32)


@pytest.mark.parametrize("name", [*LAYERS, *OTHERS])
def test_factors_and_moments(
    operators: AotLibrary, name: str, rng: np.random.Generator, schedule: int
) -> None:
    case = Statistics({**LAYERS, **OTHERS}[name], rng)
    operator = case.operator(operators)
    # Twice, to check that a launch resets its counters.
    operator.run()
    operator.run()
    for side in (0, 1):
        case.check_factor(side, calls=2)
    case.check_moments(calls=2)
    case.check_passes(calls=2)


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(Layer(5, 40, kernel=(3, 3), size=(6, 6), samples=800), id="vectors first"),
        # Two samples, then one: half of the blocks that split the samples have none.
        pytest.param(Layer(150, 600, samples=3, locations=(190,)), id="gradient first"),
    ],
)
def test_rounds(
    operators: AotLibrary, layer: Layer, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The workspace between stages scales with the number of multiprocessors.
    monkeypatch.setenv("MS_KFAC_MULTIPROCESSORS", "1")
    case = Statistics(layer, rng)
    operator = case.operator(operators)
    operator.run()
    case.check_moments()
    whole = 4 * layer.samples * sum(vectors[0, 0].size for vectors in case.vectors)
    assert operator.sizes[1] < whole


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("name", ["dense_many", "conv_groups"])
def test_tensor_cores_for_the_factors_alone(
    operators: AotLibrary, name: str, precision: str, rng: np.random.Generator
) -> None:
    case = Statistics(LAYERS[name], rng)
    case.operator(operators, precision=precision).run()
    for side in (0, 1):
        case.check_factor(side, precision)
        case.check_rounded(side, (case.a, case.g)[side], precision)
    case.check_moments()


def test_two_runs_give_the_same_bits(operators: AotLibrary) -> None:
    cases = [Statistics(LAYERS["conv3x3"], np.random.default_rng(3)) for _ in range(2)]
    for case in cases:
        case.operator(operators).run()
    np.testing.assert_array_equal(cases[0].moments, cases[1].moments)


@pytest.mark.parametrize(
    ("separate", "gate", "opened"),
    [
        (False, 0, ""),
        (False, 1, "AGs"),
        (False, 4, "s"),
        (False, 7, "AGs"),
        (True, 0, ""),
        (True, 1, "A"),
        (True, 2, "Gs"),
        (True, 3, "AGs"),
        (True, 4, "s"),
        (True, 5, "As"),
    ],
)
@pytest.mark.parametrize("name", ["dense_reduce", "conv_reduce", "conv_wide"])
def test_gates(
    operators: AotLibrary, name: str, separate: bool, gate: int, opened: str, rng: np.random.Generator
) -> None:
    case = Statistics(LAYERS[name], rng)
    case.gate[...] = gate
    operator = case.operator(operators, separate=separate)
    operator.run()
    for side, letter in enumerate("AG"):
        if letter in opened:
            case.check_factor(side)
        else:
            case.check_untouched(side)
    if opened:
        case.check_passes(opened)
    else:
        case.check_record_empty()
    if "s" in opened:
        case.check_moments()
    else:
        case.check_moments_untouched()
        # A skipped launch must not disturb the next one.
        case.gate[...] = 4
        operator.run()
        case.check_moments()


def test_mismatched_arguments_are_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    def message(change: str, value: object) -> str:
        case = Statistics(LAYERS["conv_groups"], rng)
        setattr(case, change, value)
        with pytest.raises(AotError, match="EigenbasisStatistics: ") as error:
            case.operator(operators).run()
        return str(error.value)

    case = Statistics(LAYERS["conv_groups"], rng)
    Q_A, Q_G = case.bases
    assert "the record has 7 numbers, expected 8" in message("record", case.record[:-1].copy())
    text = message("bases", [Q_A[:1].copy(), Q_G])
    assert "the basis of inputs has 1369 numbers, expected 2 x 37 x 37" in text
    text = message("bases", [Q_A, Q_G[:, :2].copy()])
    assert "the basis of gradients has 12 numbers, expected 2 x 3 x 3" in text
    text = message("moments", case.moments[:1].copy())
    assert "the second moments have 111 numbers, expected 2 x 3 x 37" in text
