"""Losses, metrics and their running sums during training."""

from __future__ import annotations

import math
from typing import Any

import mindspore as ms
import mindspore.nn as nn
import numpy as np
from mindspore import Parameter, Tensor, ops
from mindspore.train import Metric

from model_zoo.common.data.shards import Shard
from model_zoo.common.distribution import sum_over_ranks
from model_zoo.common.options.networks import METRIC_OF_NETWORK


class ClassificationLoss(nn.Cell):
    """Softmax cross-entropy, averaged over the batch, and over the positions of a sequence.

    Args:
        label_smoothing: the fraction of a label's probability that is spread over all classes, the label's
            class included (Szegedy et al. 2016, "Rethinking the Inception architecture", section 7).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        """Creates the two values of a one-hot row."""
        super().__init__()
        self.label_smoothing = label_smoothing
        self.on = Tensor(1.0 - label_smoothing, ms.float32)
        self.off = Tensor(0.0, ms.float32)

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Maps logits (N, ..., classes) and int32 labels (N, ...), or one-hot labels, to a scalar."""
        targets = labels
        # One-hot labels are not smoothed.
        if labels.ndim < logits.ndim:
            # Not ops.cross_entropy: on CPU its summation order for few images changes from call to call, so
            # a run would not be reproducible bit for bit.
            spread = self.label_smoothing / logits.shape[-1]
            targets = ops.one_hot(labels, logits.shape[-1], self.on, self.off) + spread
        return -(ops.log_softmax(logits, -1) * targets).sum(-1).mean()


class ReconstructionLoss(nn.Cell):
    """Sigmoid cross-entropy of the pixels, summed over each image and averaged over the batch."""

    def construct(self, logits: Tensor, pixels: Tensor) -> Tensor:
        """Maps logits (N, P) and intensities (N, P) in [0, 1] to a scalar."""
        # max(z, 0) - z x + log(1 + exp(-|z|)) does not overflow for any logit z.
        terms = ops.relu(logits) - logits * pixels + ops.log1p(ops.exp(-ops.abs(logits)))
        return terms.sum() / logits.shape[0]


class Accuracy(nn.Cell):
    """The fraction of a batch that is classified correctly."""

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Maps logits (N, classes) and labels (N,) to a scalar."""
        return (logits.argmax(1) == labels).astype(ms.float32).mean()


class BitsPerByte(nn.Cell):
    """The cross-entropy of the next bytes in bits: the logarithm to base 2 of their perplexity."""

    def __init__(self) -> None:
        """Builds the cross-entropy."""
        super().__init__()
        self.nats = ClassificationLoss()
        self.bits_per_nat = 1.0 / math.log(2.0)

    def construct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Maps logits (N, T, 256) and bytes (N, T) to a scalar."""
        return self.nats(logits, targets) * self.bits_per_nat


class ReconstructionError(nn.Cell):
    """The squared difference of pixel intensities, summed over each image and averaged over the batch."""

    def construct(self, logits: Tensor, pixels: Tensor) -> Tensor:
        """Maps logits (N, P) and intensities (N, P) in [0, 1] to a scalar."""
        return ops.square(ops.sigmoid(logits) - pixels).sum() / logits.shape[0]


class RunningLoss(nn.Cell):
    """A loss that accumulates itself and a metric while the network trains.

    The sums are Parameters, so a step needs no second forward pass and no host synchronization. Sampled
    targets (`sampled_targets.py`) are bool. Their loss is not accumulated, and their labels are not smoothed,
    because they are drawn from the model's distribution.

    Args:
        loss: a cell that maps logits and targets to a scalar.
        metric: a cell that maps logits and targets to a scalar, the metric.
        shard: this process's part of every batch.
    """

    def __init__(self, loss: nn.Cell, metric: nn.Cell, shard: Shard = Shard()) -> None:  # noqa: B008
        """Initializes the sums to zero."""
        super().__init__()
        self._shard = shard
        self.loss = loss
        self.metric = metric
        self.loss_sum = Parameter(Tensor(0.0, ms.float32), name="loss_sum", requires_grad=False)
        self.metric_sum = Parameter(Tensor(0.0, ms.float32), name="figure_sum", requires_grad=False)

    def construct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss."""
        if targets.dtype == ms.bool_:
            return self.loss(logits, ops.cast(targets, ms.float32))
        loss = self.loss(logits, targets)
        if self.training:
            metric = self.metric(ops.stop_gradient(logits), targets)
            ops.assign_add(self.loss_sum, ops.stop_gradient(loss))
            ops.assign_add(self.metric_sum, metric)
        return loss

    def sums(self) -> tuple[float, float]:
        """Returns the sums of loss and metric since the last reset; a collective call.

        Returns:
            Both sums, averaged over the processes.
        """
        own = [float(self.loss_sum.asnumpy()), float(self.metric_sum.asnumpy())]
        loss, metric = sum_over_ranks(own, self._shard)
        return loss / self._shard.size, metric / self._shard.size

    def reset(self) -> None:
        """Resets the sums to zero."""
        # A compiled graph keeps writing to the buffer that `set_data` would replace.
        ops.assign(self.loss_sum, Tensor(0.0, ms.float32))
        ops.assign(self.metric_sum, Tensor(0.0, ms.float32))


def create_loss(
    network_name: str,
    shard: Shard = Shard(),  # noqa: B008
    *,
    label_smoothing: float = 0.0,
) -> RunningLoss:
    """Creates the loss of a zoo network.

    Args:
        network_name: its name in a recipe.
        shard: this process's part of every batch.
        label_smoothing: the label smoothing of a classifier.

    Returns:
        The loss function for mindspore.train.Model.
    """
    metric = METRIC_OF_NETWORK[network_name]
    if metric == "reconstruction_error":
        return RunningLoss(ReconstructionLoss(), ReconstructionError(), shard)
    measure = BitsPerByte() if metric == "bits_per_byte" else Accuracy()
    return RunningLoss(ClassificationLoss(label_smoothing), measure, shard)


class WeightedMean(Metric):
    """The mean of a per-batch mean over all images; batches may differ in size.

    Args:
        quantity: a cell that maps logits and targets to a scalar.
        shard: this process's part of the images.
    """

    def __init__(self, quantity: nn.Cell, shard: Shard = Shard()) -> None:  # noqa: B008
        """Initializes the sums."""
        super().__init__()
        self._shard = shard
        self.quantity = quantity
        self.clear()

    def clear(self) -> None:
        """Resets the sums."""
        self._sum = 0.0
        self._images = 0

    def update(self, *inputs: Any) -> None:
        """Adds one batch: its logits and its targets."""
        logits, targets = inputs
        images = logits.shape[0]
        self._sum += float(self.quantity(logits, targets).asnumpy()) * images
        self._images += images

    def eval(self) -> float:
        """The mean over all images of all processes so far; NaN if there were none."""
        total, images = sum_over_ranks([self._sum, self._images], self._shard)
        return total / images if images else float(np.nan)


def create_metrics(network_name: str, shard: Shard = Shard()) -> dict[str, Metric]:  # noqa: B008
    """Creates the metrics of mindspore.train.Model.eval for a zoo network.

    Args:
        network_name: its name in a recipe.
        shard: this process's part of the images.

    Returns:
        The metrics "loss", without label smoothing, and the network's metric.
    """
    loss_fn = create_loss(network_name)
    return {
        "loss": WeightedMean(loss_fn.loss, shard),
        METRIC_OF_NETWORK[network_name]: WeightedMean(loss_fn.metric, shard),
    }
