"""The training step with the passes that some options need beside the ordinary one."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.capture.moving_statistics import moving_statistics
from ms_kfac.ops.kept_values import KeptValues
from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.train.sampled_targets import SampledLoss, SampleTargets, targets_cell


class TrainOneStepCell(nn.TrainOneStepCell):
    r"""``mindspore.nn.TrainOneStepCell`` with the further passes that options of this package ask for.

    - ``fisher="sampled"``: on steps that take statistics, a forward and backward pass on targets drawn from
      the model's own distribution (Martens & Grosse 2015, section 5), from which alone the statistics come.
    - ``damping=LevenbergMarquardt(...)``: on steps that are due, the loss of the same batch after the step.

    Both leave the weights and the moving moments of BatchNorm as the ordinary pass does, and cost nothing on
    other steps. Any other optimizer, first-order ones too, is trained as by ``nn.TrainOneStepCell``.

    Losses whose targets are drawn without being told: ``nn.CrossEntropyLoss`` and
    ``nn.SoftmaxCrossEntropyWithLogits`` (labels from softmax(logits)), and ``nn.MSELoss``. The latter is a
    negative log-likelihood with the variance d / 2 when it averages over d outputs of a sample, 1 / 2 when it
    sums. Class weights and label smoothing apply to the drawn labels as they do to given ones.

    Args:
        network: network with loss; with ``fisher="sampled"`` an ``nn.WithLossCell`` or another Cell with a
            ``backbone_network`` or ``_backbone`` and a ``_loss_fn``, whose last input is the target.
        optimizer: the optimizer.
        sens: what the gradient is multiplied with, the loss scale; None for 1. The optimizer's
            ``loss_scale`` must equal it, unless the network itself scales its loss. Default: None.
        sample_targets: None to infer it from the class of the loss; "cross_entropy" (classes on axis 1,
            int32 labels), "squared_error" (unit variance, as of :math:`\frac12 \|f - y\|^2`), or a Cell that
            maps outputs to drawn targets. Looked at with ``fisher="sampled"`` only. On many devices a Cell of
            one's own has to draw differently on each. Default: None.

    Inputs:
        - **inputs** (tuple[Tensor]) - the network's.

    Outputs:
        Tensor, the loss before the step.

    Raises:
        TypeError: if the targets can't be drawn for this loss or network.
        ValueError: if ``sample_targets`` is an unknown word, or ``sens`` is 0.

    Platforms: CPU. GPU and Ascend with built-in operators: not run there yet.

    Examples:
        >>> import ms_kfac
        >>> from mindspore import nn
        >>> net = nn.Dense(8, 4)
        >>> optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled")
        >>> step = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, nn.CrossEntropyLoss()), optimizer)
    """

    def __init__(
        self,
        network: nn.Cell,
        optimizer: nn.Optimizer,
        sens: float | None = None,
        *,
        sample_targets: SampleTargets = None,
    ) -> None:
        super().__init__(network, optimizer, sens)
        second_order = isinstance(optimizer, SecondOrderOptimizer)
        self.takes_sampled_pass = second_order and optimizer.fisher == "sampled" and len(optimizer.blocks) > 0
        self.adapts_damping = second_order and optimizer.adapts_damping
        if self.takes_sampled_pass:
            backbone = getattr(network, "_backbone", getattr(network, "backbone_network", None))
            loss = getattr(network, "_loss_fn", None)
            if not isinstance(backbone, nn.Cell) or not isinstance(loss, nn.Cell):
                raise TypeError(
                    "network must be an nn.WithLossCell, or have a backbone_network and a _loss_fn, so that "
                    f"targets can be drawn from its outputs; got {type(network).__name__}"
                )
            targets = targets_cell(sample_targets, loss, optimizer.draw_seed)
            self.sampled_loss = SampledLoss(backbone, loss, targets)
            self.sampled_loss.set_grad()
            self.sampled_state = KeptValues(moving_statistics(network) + optimizer.counters())
        if self.adapts_damping:
            self.forward_state = KeptValues(moving_statistics(network))
            self.change_scale = self.sens / optimizer.loss_scale
            self.reduce_sum = ops.ReduceSum()
        if second_order:
            optimizer.has_train_cell = True

    def construct(self, *inputs: Tensor) -> Tensor:
        # Nested: the outer condition is known when compiling, and the inner exists only where it holds.
        if self.takes_sampled_pass:  # noqa: SIM102
            if self.optimizer.statistics_schedule.is_pending():
                inputs = self.after(self.sampled_pass(*inputs), *inputs)
        loss = super().construct(*inputs)
        if self.adapts_damping:  # noqa: SIM102
            if self.optimizer.damping.schedule.is_due(self.optimizer.global_step):
                loss = ops.depend(loss, self.damping_pass(loss, *inputs))
        return loss

    def after(self, token: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The inputs, for a pass that waits for the token."""
        return (ops.depend(inputs[0], token), *inputs[1:])

    def sampled_pass(self, *inputs: Tensor) -> Any:
        """Statistics from targets drawn from the model: forward, backward, nothing else changed."""
        schedule = self.optimizer.statistics_schedule
        kept = self.sampled_state.read()
        opened = schedule.open(kept)
        inputs = self.after(opened, *inputs)
        if self.sense_flag:
            sens = ops.fill(ms.float32, (), self.sens)
            gradients = self.grad(self.sampled_loss, self.weights)(*inputs, sens)
        else:
            gradients = self.grad_no_sens(self.sampled_loss, self.weights)(*inputs)
        closed = schedule.close(gradients)
        return closed, self.sampled_state.put_back(kept, closed)

    def damping_pass(self, loss: Tensor, *inputs: Tensor) -> bool:
        """The loss after the step, and what its change says of the damping."""
        kept = self.forward_state.read()
        change = self.network(*self.after((loss, kept), *inputs)) - loss
        restored = self.forward_state.put_back(kept, change)
        total = self.reduce_sum(ops.cast(change, ms.float32)) * self.change_scale
        return self.optimizer.damping.schedule.adapt(ops.depend(self.optimizer.over_ranks(total), restored))
