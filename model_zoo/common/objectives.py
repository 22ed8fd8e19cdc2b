"""What a network is trained for: its loss and the figure that people read beside it."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import mindspore.nn as nn
import numpy as np
from mindspore import Parameter, Tensor, ops
from mindspore.train import Metric

from model_zoo.common.data.shards import Shard
from model_zoo.common.distribution import sums_over_ranks
from model_zoo.common.options.networks import FIGURE_OF_NETWORK


class ClassificationLoss(nn.Cell):
    """Softmax cross-entropy, averaged over the batch.

    Args:
        label_smoothing: the share of a label's probability that is spread over all classes, its own too
            (Szegedy et al. 2016, "Rethinking the Inception architecture", section 7).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        """Makes the two values of a one-hot row."""
        super().__init__()
        self.label_smoothing = label_smoothing
        self.on = Tensor(1.0 - label_smoothing, ms.float32)
        self.off = Tensor(0.0, ms.float32)

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Maps logits (N, classes) and int32 labels (N,), or unsmoothed one-hot ones, to a scalar."""
        targets = labels
        if len(labels.shape) == 1:
            # Not ops.cross_entropy: on CPU the order of its sum over few images changes from call to call,
            # and a run could not be repeated bit for bit.
            spread = self.label_smoothing / logits.shape[1]
            targets = ops.one_hot(labels, logits.shape[1], self.on, self.off) + spread
        return -(ops.log_softmax(logits, 1) * targets).sum(1).mean()


class ReconstructionLoss(nn.Cell):
    """Sigmoid cross-entropy of the pixels, summed over an image and averaged over the batch."""

    def construct(self, logits: Tensor, pixels: Tensor) -> Tensor:
        """Maps logits (N, P) and intensities (N, P) in [0, 1] to a scalar."""
        # max(z, 0) - z x + log(1 + exp(-|z|)) does not overflow for any logit z.
        terms = ops.relu(logits) - logits * pixels + ops.log1p(ops.exp(-ops.abs(logits)))
        return terms.sum() / logits.shape[0]


class Accuracy(nn.Cell):
    """The share of a batch that is classified correctly."""

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Maps logits (N, classes) and labels (N,) to a scalar."""
        return (logits.argmax(1) == labels).astype(ms.float32).mean()


class ReconstructionError(nn.Cell):
    """The squared difference of pixel intensities, summed over an image and averaged over the batch."""

    def construct(self, logits: Tensor, pixels: Tensor) -> Tensor:
        """Maps logits (N, P) and intensities (N, P) in [0, 1] to a scalar."""
        return ops.square(ops.sigmoid(logits) - pixels).sum() / logits.shape[0]


class RunningObjective(nn.Cell):
    """A loss that adds itself and the figure to running sums while it trains.

    The sums live in Parameters: they cost neither a second forward pass nor a wait of the host in a step.
    Targets that were drawn for the statistics (`drawn_targets.py`) are bools; what comes of them is not
    counted, and no label is smoothed, because the model's distribution is what they were drawn from.

    Args:
        loss: of logits and targets, a scalar.
        figure: of logits and targets, a scalar.
        shard: this process among those that share every batch.
    """

    def __init__(self, loss: nn.Cell, figure: nn.Cell, shard: Shard = Shard()) -> None:  # noqa: B008
        """Starts the sums at zero."""
        super().__init__()
        self._shard = shard
        self.loss = loss
        self.figure = figure
        self.loss_sum = Parameter(Tensor(0.0, ms.float32), name="loss_sum", requires_grad=False)
        self.figure_sum = Parameter(Tensor(0.0, ms.float32), name="figure_sum", requires_grad=False)

    def construct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss."""
        if targets.dtype == ms.bool_:
            return self.loss(logits, ops.cast(targets, ms.float32))
        loss = self.loss(logits, targets)
        if self.training:
            figure = self.figure(ops.stop_gradient(logits), targets)
            ops.assign_add(self.loss_sum, ops.stop_gradient(loss))
            ops.assign_add(self.figure_sum, figure)
        return loss

    def sums(self) -> tuple[float, float]:
        """Sums of loss and figure over all steps so far; all processes must call it after the same step.

        Returns:
            The two, each the mean over the processes.
        """
        own = [float(self.loss_sum.asnumpy()), float(self.figure_sum.asnumpy())]
        loss, figure = sums_over_ranks(own, self._shard)
        return loss / self._shard.size, figure / self._shard.size

    def reset(self) -> None:
        """Sets the sums to zero."""
        # A compiled graph goes on writing to the buffer that `set_data` would replace.
        ops.assign(self.loss_sum, Tensor(0.0, ms.float32))
        ops.assign(self.figure_sum, Tensor(0.0, ms.float32))


def create_objective(
    network_name: str,
    shard: Shard = Shard(),  # noqa: B008
    *,
    label_smoothing: float = 0.0,
) -> RunningObjective:
    """The objective of a network of the zoo.

    Args:
        network_name: its name in a recipe.
        shard: this process among those that share every batch.
        label_smoothing: of a classifier's loss.

    Returns:
        The loss function for mindspore.train.Model.
    """
    if FIGURE_OF_NETWORK[network_name] == "accuracy":
        return RunningObjective(ClassificationLoss(label_smoothing), Accuracy(), shard)
    return RunningObjective(ReconstructionLoss(), ReconstructionError(), shard)


class WeightedMean(Metric):
    """The mean over images of what a cell gives as the mean over a batch; batches may differ in size.

    Args:
        quantity: of logits and targets, a scalar.
        shard: this process among those that share the images.
    """

    def __init__(self, quantity: nn.Cell, shard: Shard = Shard()) -> None:  # noqa: B008
        """Starts empty."""
        super().__init__()
        self._shard = shard
        self.quantity = quantity
        self.clear()

    def clear(self) -> None:
        """Forgets all batches."""
        self._sum = 0.0
        self._images = 0

    def update(self, *inputs: Any) -> None:
        """Adds one batch: its logits and its targets."""
        logits, targets = inputs
        images = logits.shape[0]
        self._sum += float(self.quantity(logits, targets).asnumpy()) * images
        self._images += images

    def eval(self) -> float:
        """The mean over all images of all processes so far; not a number when there were none."""
        total, images = sums_over_ranks([self._sum, self._images], self._shard)
        return total / images if images else float(np.nan)


def create_metrics(network_name: str, shard: Shard = Shard()) -> dict[str, Metric]:  # noqa: B008
    """The metrics of mindspore.train.Model.eval for a network of the zoo.

    Args:
        network_name: its name in a recipe.
        shard: this process among those that share the images.

    Returns:
        The metrics "loss", without label smoothing, and "accuracy" or "reconstruction_error".
    """
    objective = create_objective(network_name)
    return {
        "loss": WeightedMean(objective.loss, shard),
        FIGURE_OF_NETWORK[network_name]: WeightedMean(objective.figure, shard),
    }
