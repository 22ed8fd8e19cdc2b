"""Losses, figures and their running sums against NumPy."""

from __future__ import annotations

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.train import Model

from model_zoo.common.objectives import (
    Accuracy,
    ClassificationLoss,
    ReconstructionError,
    ReconstructionLoss,
    WeightedMean,
    create_metrics,
    create_objective,
)


class Zeros(nn.Cell):
    """A network whose logits are zero."""

    def construct(self, x: Tensor) -> Tensor:
        return x * 0


def test_classification(rng: np.random.Generator) -> None:
    logits = rng.standard_normal((6, 10)).astype(np.float32)
    labels = np.array([1, 2, 3, 4, 5, 6], np.int32)
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(6), labels])
    assert float(ClassificationLoss()(Tensor(logits), Tensor(labels))) == pytest.approx(expected, rel=1e-5)
    share = (logits.argmax(1) == labels).mean()
    assert float(Accuracy()(Tensor(logits), Tensor(labels))) == pytest.approx(share)


def test_reconstruction_also_for_huge_logits(rng: np.random.Generator) -> None:
    logits = (rng.standard_normal((4, 7)) * 3).astype(np.float32)
    pixels = rng.random((4, 7)).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(float)))
    cross_entropy = -(pixels * np.log(p) + (1 - pixels) * np.log(1 - p)).sum(1).mean()
    assert float(ReconstructionLoss()(Tensor(logits), Tensor(pixels))) == pytest.approx(
        cross_entropy, rel=1e-5
    )
    squared = ((p - pixels) ** 2).sum(1).mean()
    assert float(ReconstructionError()(Tensor(logits), Tensor(pixels))) == pytest.approx(squared, rel=1e-5)
    huge = Tensor([[1000.0, -1000.0]], ms.float32)
    assert float(ReconstructionLoss()(huge, Tensor([[0.5, 0.0]], ms.float32))) == pytest.approx(500.0)


def test_running_sums_grow_in_training_only(mode: int, rng: np.random.Generator) -> None:
    objective = create_objective("mlp").set_train()
    logits, labels = Tensor(rng.standard_normal((5, 10)), ms.float32), Tensor([0, 1, 2, 3, 4], ms.int32)
    step = ms.value_and_grad(objective, 0)
    loss = float(step(logits, labels)[0])
    step(logits, labels)
    accuracy = float(Accuracy()(logits, labels))
    assert objective.sums() == pytest.approx((2 * loss, 2 * accuracy), rel=1e-5)
    objective.set_train(False)
    objective(logits, labels)
    assert objective.sums() == pytest.approx((2 * loss, 2 * accuracy), rel=1e-5)
    objective.reset()
    assert objective.sums() == (0.0, 0.0)
    objective.set_train()
    step(logits, labels)
    assert objective.sums()[0] == pytest.approx(loss, rel=1e-5)


def test_the_gradient_is_that_of_the_loss_alone(rng: np.random.Generator) -> None:
    logits, labels = Tensor(rng.standard_normal((5, 10)), ms.float32), Tensor([0, 1, 2, 3, 4], ms.int32)
    counted = ms.grad(create_objective("mlp").set_train(), 0)(logits, labels)
    plain = ms.grad(ClassificationLoss(), 0)(logits, labels)
    np.testing.assert_allclose(counted.asnumpy(), plain.asnumpy(), rtol=1e-6)


def test_a_metric_weighs_batches_by_their_size() -> None:
    metric = WeightedMean(Accuracy())
    metric.update(Tensor([[1.0, 0.0]] * 3), Tensor([0, 0, 0], ms.int32))
    metric.update(Tensor([[1.0, 0.0]]), Tensor([1], ms.int32))
    assert metric.eval() == pytest.approx(0.75)
    metric.clear()
    assert np.isnan(metric.eval())


def test_evaluation_measures_the_logits(rng: np.random.Generator) -> None:
    pixels = rng.random((10, 784)).astype(np.float32)
    dataset = ds.NumpySlicesDataset((np.zeros_like(pixels), pixels), ["image", "label"], shuffle=False).batch(
        4
    )
    metrics = create_metrics("autoencoder")
    results = Model(Zeros(), create_objective("autoencoder"), metrics=metrics).eval(dataset)
    # A logit of zero is the intensity 1/2, at a cross-entropy of log 2 whatever the pixel is.
    assert results["loss"] == pytest.approx(784 * np.log(2), rel=1e-5)
    assert results["reconstruction_error"] == pytest.approx(((pixels - 0.5) ** 2).sum(1).mean(), rel=1e-5)
