"""Losses, metrics and their running sums against NumPy."""

from __future__ import annotations

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.train import Model

from model_zoo.common.losses import (
    Accuracy,
    BitsPerByte,
    ClassificationLoss,
    ReconstructionError,
    ReconstructionLoss,
    WeightedMean,
    create_loss,
    create_metrics,
)
from model_zoo.common.sampled_targets import create_target_sampler


class Zeros(nn.Cell):
    """A network whose logits are zero."""

    def construct(self, x: Tensor) -> Tensor:
        return x * 0


def test_classification_loss_and_metrics(rng: np.random.Generator) -> None:
    logits = rng.standard_normal((6, 10)).astype(np.float32)
    labels = np.array([1, 2, 3, 4, 5, 6], np.int32)
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(6), labels])
    assert float(ClassificationLoss()(Tensor(logits), Tensor(labels))) == pytest.approx(expected, rel=1e-5)
    share = (logits.argmax(1) == labels).mean()
    assert float(Accuracy()(Tensor(logits), Tensor(labels))) == pytest.approx(share)


def test_losses_of_a_sequence_are_means_over_its_positions(mode: int, rng: np.random.Generator) -> None:
    logits = rng.standard_normal((3, 4, 7))
    labels = rng.integers(0, 7, (3, 4))
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_p, labels[..., None], -1).mean()
    inputs = Tensor(logits, ms.float32), Tensor(labels, ms.int32)
    loss, gradient = ms.value_and_grad(create_loss("gpt").set_train(), 0)(*inputs)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(
        gradient.asnumpy(), (np.exp(log_p) - np.eye(7)[labels]) / 12, rtol=1e-4, atol=1e-6
    )
    assert float(BitsPerByte()(*inputs)) == pytest.approx(expected / np.log(2), rel=1e-5)
    sampled = create_target_sampler("gpt")(inputs[0])
    assert sampled.shape == (3, 4, 7)
    assert np.all(sampled.asnumpy().sum(-1) == 1)
    sampled_loss = float(create_loss("gpt").set_train()(inputs[0], sampled))
    assert sampled_loss == pytest.approx(-(log_p * sampled.asnumpy()).sum(-1).mean(), rel=1e-5)


def test_reconstruction_loss_with_large_logits(rng: np.random.Generator) -> None:
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


def test_smoothed_labels_are_spread_over_all_classes(mode: int, rng: np.random.Generator) -> None:
    logits = rng.standard_normal((6, 5))
    labels = np.array([0, 1, 2, 3, 4, 0])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    smoothed = 0.9 * np.eye(5)[labels] + 0.1 / 5
    inputs = Tensor(logits, ms.float32), Tensor(labels, ms.int32)
    loss, gradient = ms.value_and_grad(ClassificationLoss(0.1), 0)(*inputs)
    # float32 rounds each of a sum's few terms by 6e-8 of itself; a hundred times that.
    assert float(loss) == pytest.approx(-(smoothed * log_p).sum(1).mean(), rel=6e-6)
    np.testing.assert_allclose(gradient.asnumpy(), (np.exp(log_p) - smoothed) / 6, rtol=1e-4, atol=1e-6)


def test_label_smoothing_changes_the_loss_but_not_the_metrics(rng: np.random.Generator) -> None:
    logits, labels = Tensor(rng.standard_normal((6, 10)), ms.float32), Tensor([1] * 6, ms.int32)
    smoothed = create_loss("vgg", label_smoothing=0.1).set_train(False)(logits, labels)
    assert float(smoothed) == pytest.approx(float(ClassificationLoss(0.1)(logits, labels)))
    metric = create_metrics("vgg")["loss"]
    metric.update(logits, labels)
    assert metric.eval() == pytest.approx(float(ClassificationLoss()(logits, labels)))


def test_sampled_targets_are_neither_counted_nor_smoothed(mode: int, rng: np.random.Generator) -> None:
    logits, labels = Tensor(rng.standard_normal((3, 4)), ms.float32), np.array([1, 0, 3])
    loss_fn = create_loss("convnet", label_smoothing=0.3).set_train()
    sampled = Tensor(np.eye(4)[labels] > 0)
    loss, gradient = ms.value_and_grad(loss_fn, 0)(logits, sampled)
    plain, expected = ms.value_and_grad(ClassificationLoss(), 0)(logits, Tensor(labels, ms.int32))
    assert float(loss) == pytest.approx(float(plain), rel=1e-5)
    np.testing.assert_allclose(gradient.asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-6)
    pixels = rng.random((3, 4)) < 0.5
    autoencoder = create_loss("autoencoder").set_train()
    assert float(autoencoder(logits, Tensor(pixels))) == pytest.approx(
        float(ReconstructionLoss()(logits, Tensor(pixels, ms.float32))), rel=1e-5
    )
    assert loss_fn.sums() == autoencoder.sums() == (0.0, 0.0)


def test_targets_are_sampled_from_the_predictions(mode: int) -> None:
    ms.set_seed(3)
    probabilities = np.array([0.1, 0.2, 0.7])
    logits = Tensor(np.tile(np.log(probabilities), (20_000, 1)), ms.float32)
    classes = create_target_sampler("resnet")(logits).asnumpy()
    assert classes.dtype == bool
    assert np.all(classes.sum(1) == 1)
    # Five standard deviations of a mean of n draws, each of variance p (1 - p) <= 1/4.
    bound = 5 * np.sqrt(0.25 / 20_000)
    np.testing.assert_allclose(classes.mean(0), probabilities, atol=bound)
    pixels = create_target_sampler("autoencoder")(logits).asnumpy()
    assert pixels.dtype == bool
    np.testing.assert_allclose(pixels.mean(0), probabilities / (1 + probabilities), atol=bound)
    # Independent from pixel to pixel: the covariance of two of them has the same bound.
    assert np.max(np.abs(np.cov(pixels.T.astype(float))[np.triu_indices(3, 1)])) < bound


def test_running_sums_grow_in_training_only(mode: int, rng: np.random.Generator) -> None:
    loss_fn = create_loss("mlp").set_train()
    logits, labels = Tensor(rng.standard_normal((5, 10)), ms.float32), Tensor([0, 1, 2, 3, 4], ms.int32)
    step = ms.value_and_grad(loss_fn, 0)
    loss = float(step(logits, labels)[0])
    step(logits, labels)
    accuracy = float(Accuracy()(logits, labels))
    assert loss_fn.sums() == pytest.approx((2 * loss, 2 * accuracy), rel=1e-5)
    loss_fn.set_train(False)
    loss_fn(logits, labels)
    assert loss_fn.sums() == pytest.approx((2 * loss, 2 * accuracy), rel=1e-5)
    loss_fn.reset()
    assert loss_fn.sums() == (0.0, 0.0)
    loss_fn.set_train()
    step(logits, labels)
    assert loss_fn.sums()[0] == pytest.approx(loss, rel=1e-5)


def test_metrics_do_not_change_the_gradient(rng: np.random.Generator) -> None:
    logits, labels = Tensor(rng.standard_normal((5, 10)), ms.float32), Tensor([0, 1, 2, 3, 4], ms.int32)
    counted = ms.grad(create_loss("mlp").set_train(), 0)(logits, labels)
    plain = ms.grad(ClassificationLoss(), 0)(logits, labels)
    np.testing.assert_allclose(counted.asnumpy(), plain.asnumpy(), rtol=1e-6)


def test_metric_weights_batches_by_their_size() -> None:
    metric = WeightedMean(Accuracy())
    metric.update(Tensor([[1.0, 0.0]] * 3), Tensor([0, 0, 0], ms.int32))
    metric.update(Tensor([[1.0, 0.0]]), Tensor([1], ms.int32))
    assert metric.eval() == pytest.approx(0.75)
    metric.clear()
    assert np.isnan(metric.eval())


def test_evaluation_metrics_use_the_logits(rng: np.random.Generator) -> None:
    pixels = rng.random((10, 784)).astype(np.float32)
    dataset = ds.NumpySlicesDataset((np.zeros_like(pixels), pixels), ["image", "label"], shuffle=False).batch(
        4
    )
    metrics = create_metrics("autoencoder")
    results = Model(Zeros(), create_loss("autoencoder"), metrics=metrics).eval(dataset)
    # A logit of zero is the intensity 1/2, at a cross-entropy of log 2 whatever the pixel is.
    assert results["loss"] == pytest.approx(784 * np.log(2), rel=1e-5)
    assert results["reconstruction_error"] == pytest.approx(((pixels - 0.5) ** 2).sum(1).mean(), rel=1e-5)
