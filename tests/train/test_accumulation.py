"""Micro-batches, one per call: several of them are one batch."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.factors import dense_factors
from tests.support.bank import tensor
from tests.support.loops import Batch, as_dataset, cross_entropy
from tests.support.methods import METHODS, fixed_intervals
from tests.support.networks import Perceptron, weights_of
from tests.train.test_loss_scaling import assert_same, build, dynamic, overflowing, state_of, train, vectors

PARTS = 2


def parts(batch: Batch) -> list[Batch]:
    x, y = batch
    size = len(x) // PARTS
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def micro_batches(data: Sequence[Batch]) -> list[Batch]:
    return [part for batch in data for part in parts(batch)]


def run(
    data: Sequence[Batch], name: str, steps: int, reduction: str = "mean"
) -> tuple[nn.Cell, nn.Optimizer]:
    """Trains a network without batch normalisation, which would see micro-batches as other functions."""
    net = Perceptron((5, 4, 3))
    if name == "first order":
        optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9, 0.01)
    else:
        method, options = METHODS[name]
        options = {"damping": 0.05, "weight_decay": 0.01, **options, "reduction": reduction}
        if reduction == "sum":
            # The clip gives a gradient of another length the same step.
            options["kl_clip"] = None
        optimizer = method(net, 0.1, accumulation_steps=steps, **options)
    network = nn.WithLossCell(net, cross_entropy(reduction))
    cell = ms_kfac.TrainOneStepCell(network, optimizer, accumulation_steps=steps)
    cell.set_train()
    for x, y in data:
        cell(tensor(x), tensor(y))
    return net, optimizer


def assert_one_batch(name: str, reduction: str = "mean") -> None:
    data = vectors(3)
    start = weights_of(Perceptron((5, 4, 3)))
    expected, whole = run(data, name, 1, reduction)
    found, accumulating = run(micro_batches(data), name, PARTS, reduction)
    for key, weight in weights_of(expected).items():
        moved = np.abs(weight - start[key]).max()
        assert moved > 1e-3, key
        # Float32 rounding of sums in another order (1e-7), behind damped inverses of condition 1e2 to 1e3.
        np.testing.assert_allclose(weights_of(found)[key], weight, rtol=0, atol=1e-3 * moved, err_msg=key)
    assert int(accumulating.global_step.asnumpy().item()) == 3
    if name != "first order":
        assert accumulating.refreshes() == whole.refreshes()
        for layer in ("layers.0", "layers.1"):
            for key, factor in whole.factors(layer).items():
                if key.startswith("Q"):
                    continue  # An eigenvector's sign is free; the weights above depend on no sign.
                scale = np.abs(factor).max()
                np.testing.assert_allclose(
                    accumulating.factors(layer)[key],
                    factor,
                    rtol=0,
                    atol=1e-3 * scale,
                    err_msg=f"{layer} {key}",
                )


@pytest.mark.parametrize("name", ["first order", "KFAC", "SKFAC", "SMKFAC"])
def test_micro_batches_are_one_batch(name: str) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    assert_one_batch(name)
    ms.set_context(mode=ms.PYNATIVE_MODE)


def test_the_same_in_pynative_mode() -> None:
    assert_one_batch("KFAC")


def test_losses_that_are_sums(mode: int) -> None:
    assert_one_batch("KFAC", "sum")


def in_unequal_parts(
    data: Sequence[Batch], reduction: str, mode: int, steps: int = PARTS
) -> tuple[nn.Cell, nn.Optimizer]:
    """One layer, trained on three rows of each batch and then on the others; or on whole batches."""
    ms.set_context(mode=mode)
    net = Perceptron((5, 3))
    # The clip would give a gradient of another length the same step.
    options = {"kl_clip": None, "damping": 0.1, **fixed_intervals(1, 1)}
    optimizer = ms_kfac.KFAC(net, 0.1, reduction=reduction, accumulation_steps=steps, **options)
    cell = ms_kfac.TrainOneStepCell(
        nn.WithLossCell(net, cross_entropy(reduction)), optimizer, accumulation_steps=steps
    )
    cell.set_train()
    for x, y in data:
        for rows in (slice(3), slice(3, None)) if steps > 1 else (slice(None),):
            cell(tensor(x[rows]), tensor(y[rows]))
    return net, optimizer


def test_unequal_micro_batches_of_summed_losses_are_one_batch(mode: int) -> None:
    data = vectors(2)
    whole, expected = in_unequal_parts(data, "sum", mode, steps=1)
    net, optimizer = in_unequal_parts(data, "sum", mode)
    for key, weight in weights_of(whole).items():
        np.testing.assert_allclose(weights_of(net)[key], weight, rtol=0, atol=1e-6, err_msg=key)
    for key, factor in expected.factors("layers.0").items():
        np.testing.assert_allclose(optimizer.factors("layers.0")[key], factor, rtol=1e-4, atol=1e-6)


def test_unequal_micro_batches_of_mean_losses_have_the_statistics_of_their_samples(mode: int) -> None:
    """One step: the samples' factors. The gradient is the mean of the two means, as for nn.Momentum."""
    ((x, y),) = data = vectors(1)
    start = weights_of(Perceptron((5, 3)))
    _, optimizer = in_unequal_parts(data, "mean", mode)
    z = x @ start["layers.0.weight"].T + start["layers.0.bias"]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    g = p - np.eye(3)[y]
    for factor, expected in zip("AG", dense_factors(x, g, True)):
        np.testing.assert_allclose(optimizer.factors("layers.0")[factor], expected, rtol=1e-4, atol=1e-6)
    means = [g[rows].T @ x[rows] / len(x[rows]) for rows in (slice(3), slice(3, None))]
    delivered = optimizer.moments[0].asnumpy()
    A, G = dense_factors(x, g, True)
    bias = np.concatenate([mean.mean(axis=0, keepdims=True) for mean in (g[:3], g[3:])]).mean(axis=0)
    dW = np.concatenate([(means[0] + means[1]) / 2, bias[:, None]], axis=1)
    pi = np.sqrt((np.trace(A) / len(A)) / (np.trace(G) / len(G)))
    root = np.sqrt(0.1)
    U = np.linalg.solve(G + root / pi * np.eye(3), dW) @ np.linalg.inv(A + root * pi * np.eye(6))
    np.testing.assert_allclose(delivered, U[:, :5], rtol=1e-3, atol=1e-6)


def test_a_micro_batch_that_overflows_drops_its_step(mode: int) -> None:
    """The first of a step, or the last; the scale changes once a step."""
    first, second = vectors(2)
    good = micro_batches([first, second])
    expected, _ = train("sum", good, PARTS)
    bad = [good[0], overflowing(good[1])], [overflowing(good[2]), good[3]]
    data = [*bad[0], *good[:2], *bad[1], *good[2:]]
    found, outputs = train("sum", data, PARTS, scale_sense=dynamic(2.0**10, 100))
    # The last step's sums of gradients are those of the same micro-batches, times a scale.
    assert_same(found, expected)
    assert [overflow for _, overflow, _ in outputs] == [False, True, False, False] * 2
    assert [scale for _, _, scale in outputs] == [2.0**10, *[2.0**9] * 4, *[2.0**8] * 3]


def test_moments_move_once_a_micro_batch(mode: int) -> None:
    """By a tenth of the batch's mean: nn.BatchNorm1d's momentum is 0.9."""
    x, y = parts(vectors(1)[0])[0]
    net, _, cell = build("first order", PARTS)
    weight, bias = (p.asnumpy().astype(np.float64) for p in (net.hidden.weight, net.hidden.bias))
    cell(tensor(x), tensor(y))
    mean = (x @ weight.T + bias).mean(axis=0)
    np.testing.assert_allclose(net.norm.moving_mean.asnumpy(), 0.1 * mean, rtol=1e-5, atol=1e-6)


def test_model_takes_a_step_every_so_many_batches(mode: int) -> None:
    """The batch of `train` is a micro-batch; what is left of an epoch is the next one's."""
    data = micro_batches(vectors(3))[:5]
    net = Perceptron((5, 4, 3))
    optimizer = ms_kfac.KFAC(net, 0.1, factor_interval=1, accumulation_steps=PARTS)
    model = ms_kfac.Model(net, cross_entropy(), optimizer, accumulation_steps=PARTS)
    model.train(2, as_dataset(data), dataset_sink_mode=False)
    assert int(optimizer.global_step.asnumpy().item()) == 5
    twice, _ = run([*data, *data], "KFAC", PARTS)
    assert set(state_of(net, optimizer)) == set(state_of(twice, optimizer))
    assert optimizer.refreshes()["statistics"] == 5


@pytest.mark.parametrize(("own", "given"), [(2, 1), (1, 2), (2, 4)])
def test_the_optimizer_must_know(own: int, given: int) -> None:
    """Its statistics would be of losses divided by another number."""
    net = Perceptron((5, 3))
    optimizer = ms_kfac.KFAC(net, 0.1, accumulation_steps=own)
    with pytest.raises(ValueError, match=f"accumulation_steps.*{own}, got {given}"):
        ms_kfac.Model(net, cross_entropy(), optimizer, accumulation_steps=given)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (2.0, TypeError)])
def test_refused_by_name(value: object, error: type[Exception]) -> None:
    net = Perceptron((5, 3))
    optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    with pytest.raises(error, match=f"accumulation_steps.*{value}"):
        ms_kfac.Model(net, cross_entropy(), optimizer, accumulation_steps=value)  # type: ignore[arg-type]


def test_accumulation_with_boost_is_refused() -> None:
    net = Perceptron((5, 3))
    optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    with pytest.raises(ValueError, match="accumulation_steps"):
        ms_kfac.Model(net, cross_entropy(), optimizer, boost_level="O1", accumulation_steps=2)
