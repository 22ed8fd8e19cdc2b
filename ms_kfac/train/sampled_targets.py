r"""Targets sampled from the model's predictive distribution, for the Fisher of Martens & Grosse 2015.

The Fisher matrix is :math:`F = E_{x} E_{y \sim p_\theta(y|x)}[\nabla \log p \, \nabla \log p^{\top}]`
(section 2.2): y comes from the model, not from the training set. A loss defines this distribution if it is a
negative log-likelihood.
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
    "'cross_entropy'; 'squared_error'; or a Cell that samples targets from outputs"
)


class CategoricalTargets(nn.Cell):
    r"""Samples labels from softmax(logits), by the Gumbel-max trick.

    .. math::
        y = \arg\max_c \, (z_c - \log e_c), \qquad e_c \sim \mathrm{Exp}(1)

    :math:`-\log e_c` is a standard Gumbel variable. Minus the logarithm of a uniform variable is exponential.

    Args:
        one_hot: whether targets are one-hot float32 rows instead of int32 labels.
        draws: the random number generator. None creates one, seeded by ``mindspore.set_seed``.

    Inputs:
        - **outputs** (Tensor) - logits :math:`(C,)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`.

    Outputs:
        Tensor, int32 labels without the axis of classes. One-hot: float32, in the shape of the logits.

    Platforms: CPU, GPU, Ascend (MindSpore operators). The samples follow ``mindspore.set_seed``, and the
    state of the generator is a Parameter.
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
    r"""Samples targets for squared errors: the outputs plus Gaussian noise.

    A per-sample loss :math:`c \|f - y\|^2` is the negative log-likelihood, up to a constant, of
    :math:`y \sim N(f, \sigma^2 I)` with :math:`\sigma^2 = 1 / (2 c)`. This is 1 for
    :math:`\frac12 \|f - y\|^2`, and d / 2 for ``nn.MSELoss``, which averages d squares per sample.

    Args:
        variance: :math:`\sigma^2`. None for half the number of outputs per sample.
        draws: the random number generator. None creates one, seeded by ``mindspore.set_seed``.

    Inputs:
        - **outputs** (Tensor) - f, shape :math:`(N, ...)`.

    Outputs:
        Tensor, float32, in the shape of the outputs.

    Platforms: CPU, GPU, Ascend (MindSpore operators). The samples follow ``mindspore.set_seed``, and the
    state of the generator is a Parameter.
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
        # Box-Muller transform: radius and angle of a pair of normal variables.
        radius = ops.sqrt(-2.0 * self.log(self.draws(outputs.shape)))
        noise = radius * self.cos(2.0 * math.pi * self.draws(outputs.shape))
        return ops.cast(outputs, ms.float32) + noise * deviation


def targets_cell(sample_targets: SampleTargets, loss: Any, draws: CounterBasedRNG | None = None) -> nn.Cell:
    """Make the Cell that samples targets for a loss.

    Args:
        sample_targets: None to infer it from the class of the loss. "cross_entropy" for int32 labels with the
            classes on axis 1. "squared_error" for unit variance. A Cell is returned unchanged.
        loss: the loss function.
        draws: the random number generator; None creates one. Unused if ``sample_targets`` is a Cell.

    Returns:
        A Cell that maps outputs to targets.

    Raises:
        TypeError: if ``sample_targets`` has another type, or it is None and the class of the loss is unknown.
        ValueError: if it is another string.
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
    # Exact classes only: a subclass may have another scale.
    if type(loss) is nn.CrossEntropyLoss:
        return CategoricalTargets(draws=draws)
    if type(loss) is nn.SoftmaxCrossEntropyWithLogits:
        return CategoricalTargets(one_hot=not loss.sparse, draws=draws)
    if type(loss) is nn.MSELoss:
        averages = loss.reduce and loss.average
        return GaussianTargets(None if averages else 0.5, draws=draws)
    raise TypeError(
        f"sample_targets must be {_ACCEPTED}; got None with {type(loss).__name__}, whose predictive "
        "distribution is unknown"
    )


class SampledLoss(nn.Cell):
    r"""Computes the loss of a network's outputs for targets that are sampled from these outputs.

    A cross-entropy that averages over T positions of a sample is 1 / T of a negative log-likelihood. Its
    gradient for sampled targets is multiplied by :math:`\sqrt T`, so that the Fisher is the generalized
    Gauss-Newton matrix of the loss itself. For squared errors, the variance of :class:`GaussianTargets` has
    this effect.

    Gradients do not flow through the sampled targets. Labels that ``nn.CrossEntropyLoss`` ignores stay
    ignored.

    Args:
        backbone: the network.
        loss: its loss function.
        targets: the Cell that samples targets.

    Inputs:
        - **inputs** (tuple[Tensor]) - the inputs of the backbone, followed by the true target.

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
