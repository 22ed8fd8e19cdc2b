r"""Targets drawn from the model's own predictive distribution, for the Fisher of Martens & Grosse 2015.

The Fisher matrix is :math:`F = E_{x} E_{y \sim p_\theta(y|x)}[\nabla \log p \, \nabla \log p^{\top}]`
(section 2.2): y comes from the model, not from the training set. A loss defines the distribution as far as it
is a negative log-likelihood.
"""

from __future__ import annotations

import math
from typing import Any, Union

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.ops.graph.counter_based_rng import CounterBasedRNG

SampleTargets = Union[None, str, nn.Cell]

_ACCEPTED = (
    "None with nn.CrossEntropyLoss, nn.SoftmaxCrossEntropyWithLogits or nn.MSELoss as the loss; "
    "'cross_entropy'; 'squared_error'; or a Cell that draws targets from outputs"
)


class CategoricalTargets(nn.Cell):
    r"""Labels drawn from softmax(logits), by the Gumbel-max trick.

    .. math::
        y = \arg\max_c \, (z_c - \log e_c), \qquad e_c \sim \mathrm{Exp}(1)

    :math:`-\log e_c` is a standard Gumbel variable; minus the logarithm of a uniform one is exponential.

    Args:
        one_hot: whether targets are one-hot float32 rows in the place of int32 labels.
        draws: the random numbers; None for some of the Cell's own, by ``mindspore.set_seed``.

    Inputs:
        - **outputs** (Tensor) - logits :math:`(C,)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`.

    Outputs:
        Tensor, labels without the axis of classes, int32; or one-hot, shaped like the logits.

    Platforms: CPU, GPU, Ascend (composed of built-in operators; not run on a GPU yet). Draws follow
    ``mindspore.set_seed``, and their state is a Parameter.
    """

    def __init__(self, *, one_hot: bool = False, draws: CounterBasedRNG | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.one_hot = one_hot
        self.draws = CounterBasedRNG() if draws is None else draws
        self.zero = Tensor(0.0, ms.float32)
        self.one = Tensor(1.0, ms.float32)
        self.log = ops.Log()

    def construct(self, outputs: Tensor) -> Tensor:
        logits = ops.cast(outputs, ms.float32)
        axis = 1 if len(logits.shape) > 1 else 0
        scores = logits - self.log(-self.log(self.draws(logits.shape)))
        labels = ops.cast(ops.argmax(scores, axis), ms.int32)
        if self.one_hot:
            return ops.one_hot(labels, logits.shape[axis], self.one, self.zero, axis)
        return labels


class GaussianTargets(nn.Cell):
    r"""Outputs plus normal noise, for squared errors.

    A per-sample loss :math:`c \|f - y\|^2` is the negative log-likelihood, up to a constant, of
    :math:`y \sim N(f, \sigma^2 I)` with :math:`\sigma^2 = 1 / (2 c)`: 1 for :math:`\frac12 \|f - y\|^2`;
    d / 2 for the mean of d squares that ``nn.MSELoss`` takes of a sample.

    Args:
        variance: :math:`\sigma^2`; None for half the number of outputs of a sample.
        draws: the random numbers; None for some of the Cell's own, by ``mindspore.set_seed``.

    Inputs:
        - **outputs** (Tensor) - f, shape :math:`(N, ...)`.

    Outputs:
        Tensor, float32, shaped like the outputs.

    Platforms: CPU, GPU, Ascend (composed of built-in operators; not run on a GPU yet). Draws follow
    ``mindspore.set_seed``, and their state is a Parameter.
    """

    def __init__(self, variance: float | None = 1.0, *, draws: CounterBasedRNG | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.draws = CounterBasedRNG() if draws is None else draws
        self.log = ops.Log()
        self.cos = ops.Cos()
        self.by_size = variance is None
        self.deviation = 1.0 if variance is None else math.sqrt(variance)

    def construct(self, outputs: Tensor) -> Tensor:
        deviation = self.deviation
        if self.by_size:
            size = 1
            for extent in outputs.shape[1:]:
                size = size * extent
            deviation = (size / 2.0) ** 0.5
        # Box and Muller: the radius and the angle of a pair of normal variables.
        radius = ops.sqrt(-2.0 * self.log(self.draws(outputs.shape)))
        noise = radius * self.cos(2.0 * math.pi * self.draws(outputs.shape))
        return ops.cast(outputs, ms.float32) + noise * deviation


def targets_cell(sample_targets: SampleTargets, loss: Any, draws: CounterBasedRNG | None = None) -> nn.Cell:
    """The Cell that draws targets for a loss.

    Args:
        sample_targets: None to infer it from the loss's class; "cross_entropy" for int32 labels with the
            classes on axis 1; "squared_error" for unit variance; or the Cell itself.
        loss: the loss function.
        draws: the random numbers, as far as the targets are not those of a Cell given; None for new ones.

    Returns:
        A Cell from outputs to targets.

    Raises:
        TypeError: if ``sample_targets`` is something else, or the loss's class says nothing.
        ValueError: if it is another word.
    """
    if isinstance(sample_targets, nn.Cell):
        return sample_targets
    if isinstance(sample_targets, str):
        if sample_targets == "cross_entropy":
            return CategoricalTargets(draws=draws)
        if sample_targets == "squared_error":
            return GaussianTargets(draws=draws)
        raise ValueError(f"sample_targets must be {_ACCEPTED}, got {sample_targets!r}")
    if sample_targets is not None:
        raise TypeError(f"sample_targets must be {_ACCEPTED}, got {sample_targets!r}")
    # The classes themselves: a subclass may have another scale.
    if type(loss) is nn.CrossEntropyLoss:
        return CategoricalTargets(draws=draws)
    if type(loss) is nn.SoftmaxCrossEntropyWithLogits:
        return CategoricalTargets(one_hot=not loss.sparse, draws=draws)
    if type(loss) is nn.MSELoss:
        averages = loss.reduce and loss.average
        return GaussianTargets(None if averages else 0.5, draws=draws)
    raise TypeError(
        f"sample_targets=None can't tell the predictive distribution from {type(loss).__name__}: "
        f"it must be {_ACCEPTED}"
    )


class SampledLoss(nn.Cell):
    r"""The loss of a network's outputs against targets drawn from them.

    A cross-entropy that averages over T positions of a sample is 1 / T of a negative log-likelihood. Its
    gradient from drawn targets is multiplied by :math:`\sqrt T`, so that the Fisher is the generalised
    Gauss-Newton matrix of the loss itself, as the variance of :class:`GaussianTargets` has it for squared
    errors.

    The draw is a constant to the gradient. Labels that ``nn.CrossEntropyLoss`` ignores stay ignored.

    Args:
        backbone: the network.
        loss: its loss function.
        targets: draws the targets.

    Inputs:
        - **inputs** (tuple[Tensor]) - what the backbone takes, and the true target in the last place.

    Outputs:
        Tensor, the loss, times :math:`\sqrt T` as above.
    """

    def __init__(self, backbone: nn.Cell, loss: nn.Cell, targets: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.backbone = backbone
        self.loss = loss
        self.targets = targets
        self.ignores = type(loss) is nn.CrossEntropyLoss and type(targets) is CategoricalTargets
        self.ignore_index = loss.ignore_index if self.ignores else 0
        self.averages_positions = self.ignores and loss.reduction == "mean"

    def construct(self, *inputs: Tensor) -> Tensor:
        outputs = ops.cast(self.backbone(*inputs[:-1]), ms.float32)
        targets = self.targets(ops.stop_gradient(outputs))
        if self.ignores:
            labels = inputs[-1]
            if len(labels.shape) < len(outputs.shape):
                labels = ops.cast(labels, ms.int32)
                targets = ops.select(labels == self.ignore_index, labels, targets)
        loss = self.loss(outputs, ops.stop_gradient(targets))
        positions = 1
        if self.averages_positions:
            for extent in outputs.shape[2:]:
                positions = positions * extent
        return loss * positions**0.5
