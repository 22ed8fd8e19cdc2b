"""Targets drawn from the model: their distribution, their layout, and which losses say what to draw."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from ms_kfac.train.sampled_targets import CategoricalTargets, GaussianTargets, SampledLoss, targets_cell
from tests.support.bank import tensor

DRAWS = 20000
# A frequency that is right lies within five standard errors of its probability but once in 10⁶ cases.
ERRORS = 5.0


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def assert_frequencies(counts: np.ndarray, probabilities: np.ndarray, draws: int) -> None:
    error = np.sqrt(probabilities * (1 - probabilities) / draws)
    assert np.all(np.abs(counts / draws - probabilities) < ERRORS * error), (counts, probabilities)


@pytest.mark.parametrize("one_hot", [False, True], ids=["labels", "one_hot"])
def test_labels_follow_the_softmax(mode: int, one_hot: bool) -> None:
    logits = np.array([1.0, -0.5, 0.3, 2.0, -3.0])
    ms.set_seed(11)
    drawn = CategoricalTargets(one_hot=one_hot)(tensor(np.tile(logits, (DRAWS, 1)))).asnumpy()
    if one_hot:
        assert drawn.dtype == np.float32
        np.testing.assert_array_equal(drawn.sum(axis=1), 1)
        counts = drawn.sum(axis=0)
    else:
        assert drawn.dtype == np.int32 and drawn.shape == (DRAWS,)
        counts = np.bincount(drawn, minlength=5)
    assert_frequencies(counts, softmax(logits), DRAWS)


def test_labels_of_neighbours_are_independent() -> None:
    """Pairs of adjacent rows: their joint frequencies are products."""
    logits = np.array([0.4, -0.2, 0.0])
    ms.set_seed(12)
    labels = CategoricalTargets()(tensor(np.tile(logits, (DRAWS, 1)))).asnumpy().reshape(-1, 2)
    joint = np.bincount(labels[:, 0] * 3 + labels[:, 1], minlength=9)
    p = softmax(logits)
    assert_frequencies(joint, np.outer(p, p).reshape(-1), DRAWS // 2)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (3, 4, 5), (2, 4, 3, 5)], ids=str)
def test_axis_of_the_classes(mode: int, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """Logits so far apart that the draw is certain: classes are on axis 1, alone on axis 0."""
    axis = 1 if len(shape) > 1 else 0
    expected = rng.integers(0, 4, shape[:axis] + shape[axis + 1 :])
    logits = 200.0 * (
        np.arange(4).reshape(4, *[1] * (len(shape) - axis - 1)) == np.expand_dims(expected, axis)
    )
    np.testing.assert_array_equal(CategoricalTargets()(tensor(logits)).asnumpy(), expected)


def test_half_precision_outputs(mode: int) -> None:
    logits = ms.Tensor(np.array([[0.0, 90.0], [90.0, 0.0]]), ms.float16)
    np.testing.assert_array_equal(CategoricalTargets()(logits).asnumpy(), [1, 0])


@pytest.mark.parametrize(
    ("variance", "shape", "expected"),
    [(1.0, (100, 200), 1.0), (0.5, (20000,), 0.5), (None, (500, 40), 20.0), (None, (200, 20, 5), 50.0)],
    ids=["unit", "given", "rows", "positions"],
)
def test_gaussian_targets(mode: int, variance: float | None, shape: tuple[int, ...], expected: float) -> None:
    """Centred on the outputs; None is half the number of outputs of a sample."""
    ms.set_seed(13)
    outputs = np.full(shape, 3.0)
    noise = GaussianTargets(variance)(tensor(outputs)).asnumpy().astype(np.float64) - 3.0
    n = noise.size
    assert abs(noise.mean()) < ERRORS * np.sqrt(expected / n)
    assert abs((noise**2).mean() - expected) < ERRORS * expected * np.sqrt(2 / n)


@pytest.mark.parametrize("cell", [CategoricalTargets, GaussianTargets])
def test_seeds(mode: int, cell: type[nn.Cell]) -> None:
    """`mindspore.set_seed` repeats the draws; successive draws differ."""
    outputs = tensor(np.zeros((64, 5)))
    runs = []
    for _ in range(2):
        ms.set_seed(3)
        drawing = cell()
        runs.append([drawing(outputs).asnumpy() for _ in range(2)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.any(runs[0][0] != runs[0][1])


class OtherLoss(nn.MSELoss):
    """A subclass may have another scale: nothing is inferred from it."""


def test_targets_follow_the_loss() -> None:
    assert type(targets_cell(None, nn.CrossEntropyLoss())) is CategoricalTargets
    assert targets_cell(None, nn.SoftmaxCrossEntropyWithLogits(sparse=True)).one_hot is False
    assert targets_cell(None, nn.SoftmaxCrossEntropyWithLogits(sparse=False)).one_hot is True
    assert targets_cell(None, nn.MSELoss()).by_size is True
    assert targets_cell(None, nn.MSELoss("sum")).deviation == pytest.approx(np.sqrt(0.5))
    assert targets_cell(None, nn.MSELoss("none")).deviation == pytest.approx(np.sqrt(0.5))
    assert type(targets_cell("cross_entropy", OtherLoss())) is CategoricalTargets
    assert targets_cell("squared_error", OtherLoss()).deviation == 1.0
    own = nn.ReLU()
    assert targets_cell(own, OtherLoss()) is own


@pytest.mark.parametrize(
    ("given", "loss", "error"),
    [
        (None, OtherLoss(), TypeError),
        (None, nn.L1Loss(), TypeError),
        (3, nn.MSELoss(), TypeError),
        ("gauss", nn.MSELoss(), ValueError),
    ],
    ids=["subclass", "other", "number", "word"],
)
def test_refused(given: object, loss: nn.Cell, error: type[Exception]) -> None:
    with pytest.raises(error, match="sample_targets") as caught:
        targets_cell(given, loss)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "'squared_error'" in message and "'cross_entropy'" in message and "Cell" in message
    assert (type(loss).__name__ if given is None else repr(given)) in message


def test_ignored_labels_stay_ignored(mode: int, rng: np.random.Generator) -> None:
    """Rows that the loss ignores get no gradient, whatever is drawn for the others."""
    loss = nn.CrossEntropyLoss(ignore_index=-1)
    sampled = SampledLoss(nn.Identity(), loss, CategoricalTargets())
    labels = np.array([0, -1, 2, -1, 1], np.int32)
    logits = tensor(rng.standard_normal((5, 3)))
    gradient = ms.grad(sampled, 0)(logits, tensor(labels)).asnumpy()
    np.testing.assert_array_equal(np.abs(gradient).sum(axis=1) > 0, labels >= 0)
    # A mean over the three rows that count: each g is p minus a unit vector, over 3.
    p = np.stack([softmax(row) for row in logits.asnumpy().astype(np.float64)])[labels >= 0]
    rest = p - 3 * gradient[labels >= 0]
    np.testing.assert_allclose(np.sort(rest, axis=1), np.tile([0, 0, 1], (3, 1)), atol=1e-6)


@pytest.mark.parametrize("locations", [1, 6])
def test_cross_entropy_averaged_over_positions(mode: int, locations: int, rng: np.random.Generator) -> None:
    """Uniform predictions: |p - e_y|² = 1 - 1/C whatever is drawn. The Gauss-Newton matrix of the mean over T
    positions has G = H / T with A the sum over positions, so tr G = (1 - 1/C) / T."""
    classes = 4
    layer = nn.Conv2d(3, classes, 1, weight_init="zeros")
    net = nn.SequentialCell(layer)
    optimizer = ms_kfac.KFAC(net, 0.0, fisher="sampled", factor_interval=1)
    step = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, nn.CrossEntropyLoss()), optimizer)
    x = rng.standard_normal((5, 3, 1, locations))
    step(tensor(x), tensor(rng.integers(0, classes, (5, 1, locations))))
    trace = np.trace(optimizer.factors("0")["G"])
    assert trace == pytest.approx((1 - 1 / classes) / locations, rel=1e-5)
    assert optimizer.refreshes()["statistics"] == 1


def test_statistics_are_counted_by_the_pass_that_takes_them() -> None:
    """A custom loop without the training cell takes none, and none are counted."""
    net = nn.SequentialCell(nn.Dense(3, 2))
    optimizer = ms_kfac.KFAC(net, 0.0, fisher="sampled", factor_interval=1)
    loss = nn.CrossEntropyLoss()
    ms_kfac.TrainOneStepCell(nn.WithLossCell(net, loss), optimizer)
    gradient = ms.value_and_grad(lambda x, y: loss(net(x), y), None, optimizer.parameters)
    _, gradients = gradient(tensor(np.ones((4, 3))), tensor(np.zeros(4, np.int32)))
    optimizer(gradients)
    assert optimizer.refreshes()["statistics"] == 0
