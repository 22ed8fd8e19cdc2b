"""The training step with the passes that some options need beside the ordinary one."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.capture.batch_norm_buffers import batch_norm_buffers
from ms_kfac.ops.graph.counter_based_rng import CounterBasedRNG
from ms_kfac.ops.graph.device_residency import DeviceResidency
from ms_kfac.ops.graph.snapshot import Snapshot
from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.optim.loss_scale import LossScale
from ms_kfac.optim.options import check_count
from ms_kfac.train.accumulation import GradientAccumulation
from ms_kfac.train.loss_scaling import LossScaling
from ms_kfac.train.rollback import Rollback
from ms_kfac.train.sampled_targets import SampledLoss, SampleTargets, targets_cell
from ms_kfac.user_warning import warn_user


class TrainOneStepCell(nn.TrainOneStepCell):
    r"""``mindspore.nn.TrainOneStepCell`` with the further passes that options of this package ask for.

    - ``fisher="sampled"``: on steps that take statistics, a forward and backward pass on targets drawn from
      the model's own distribution (Martens & Grosse 2015, section 5), from which alone the statistics come.
    - ``damping=LevenbergMarquardt(...)``: on steps that are due, the loss of the same batch after the step.

    Both leave the weights and the moving moments of BatchNorm as the ordinary pass does, and cost nothing on
    other steps. Any other optimizer, first-order ones too, is trained as by ``nn.TrainOneStepCell``.

    With ``scale_sense`` the loss is scaled by a number that MindSpore's rule changes, as
    ``nn.TrainOneStepWithLossScaleCell`` does, here on CPUs too. Statistics are of the true gradients whatever
    the scale. A step that overflows changes the scale alone: weights, momentum, statistics, counters and the
    moving moments of BatchNorm stay, and the next step takes the statistics that this one should have taken.

    With ``accumulation_steps`` each call takes one micro-batch, and every so many calls the optimizer takes a
    step with the mean of their gradients; statistics are of all of them together. A micro-batch that
    overflows drops the step as a whole.

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
        scale_sense: a Cell that updates the loss scale: ``nn.DynamicLossScaleUpdateCell`` or
            ``nn.FixedLossScaleUpdateCell``. ``sens`` must be None then, and the optimizer's ``loss_scale`` 1.
            Default: None.
        accumulation_steps: micro-batches a step. The optimizer's own ``accumulation_steps``, where it has
            one, must equal it. Default: 1.

    Inputs:
        - **inputs** (tuple[Tensor]) - the network's.

    Outputs:
        Tensor, the loss before the step. With ``scale_sense`` a tuple of it, whether a step was dropped for
        overflow (bool), and the loss scale.

    Raises:
        TypeError: if the targets can't be drawn for this loss or network, or ``scale_sense`` or
            ``accumulation_steps`` is of another type.
        ValueError: if ``sample_targets`` is an unknown word, ``sens`` is 0, ``accumulation_steps`` is not the
            optimizer's, or ``scale_sense`` comes with another loss scale.

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
        scale_sense: nn.Cell | None = None,
        accumulation_steps: int = 1,
    ) -> None:
        accumulation_steps = check_count("accumulation_steps", accumulation_steps)
        second_order = isinstance(optimizer, SecondOrderOptimizer)
        if second_order and optimizer.accumulation_steps != accumulation_steps:
            raise ValueError(
                f"accumulation_steps must be that of the optimizer, {optimizer.accumulation_steps}, "
                f"got {accumulation_steps!r}; give both the same"
            )
        if scale_sense is not None:
            own_scale = optimizer.loss_scale if second_order else 1.0
            if sens is not None or own_scale != 1.0:
                raise ValueError(
                    "scale_sense needs sens=None and an optimizer with loss_scale=1, as the cell scales the "
                    f"loss and undoes it; got sens={sens!r} and loss_scale={own_scale!r}"
                )
        super().__init__(network, optimizer, sens)
        if second_order:
            _warn_of_reduction(network, optimizer)
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
            draws = CounterBasedRNG(optimizer.draws, optimizer.rng_stream)
            targets = targets_cell(sample_targets, loss, draws)
            self.sampled_loss = SampledLoss(backbone, loss, targets)
            self.sampled_loss.set_grad()
            self.sampled_state = Snapshot(batch_norm_buffers(network) + optimizer.counters())
        if self.adapts_damping:
            self.forward_state = Snapshot(batch_norm_buffers(network))
            self.change_scale = self.sens / optimizer.loss_scale
            self.reduce_sum = ops.ReduceSum()
        self.scales = scale_sense is not None
        self.accumulates = accumulation_steps > 1
        # Whether the optimizer takes its step in a branch.
        self.takes_step_if = self.scales or self.accumulates
        self.accumulation: Any = None
        self.scaling: Any = None
        if self.takes_step_if:
            self.create_branches(scale_sense, accumulation_steps)
        if second_order:
            scale = None
            if self.scaling is not None:
                scale = LossScale(source=self.scaling.running, gradients_unscaled=True)
            optimizer.use_loss_scale(scale)
            optimizer.has_train_cell = True

    def create_branches(self, scale_sense: nn.Cell | None, accumulation_steps: int) -> None:
        """What a step needs that the optimizer may take later, or not at all."""
        state = list(self.optimizer.get_parameters())
        self.yes, self.no = Tensor(True, ms.bool_), Tensor(False, ms.bool_)
        self.not_a_number = Tensor(float("nan"), ms.float32)
        self.share = self.sens / accumulation_steps
        if self.accumulates:
            self.accumulation = GradientAccumulation(self.weights, accumulation_steps)
        if self.scales:
            self.scaling = LossScaling(scale_sense)
            self.before_step = Rollback(self.network, self.optimizer)
            state += self.before_step.copies
        self.on_device = DeviceResidency(state)

    def construct(self, *inputs: Tensor) -> Any:
        if self.takes_step_if:
            return self.step_if(*inputs)
        # Nested: the outer condition is known when compiling, and the inner exists only where it holds.
        if self.takes_sampled_pass:  # noqa: SIM102
            if self.optimizer.statistics_schedule.is_pending():
                inputs = self.after(self.sampled_pass(*inputs), *inputs)
        loss = super().construct(*inputs)
        return self.with_damping(loss, *inputs)

    def step_if(self, *inputs: Tensor) -> Any:
        """A micro-batch, and the optimizer's step where it was the last one and nothing overflowed."""
        inputs = self.after(self.on_device(self.yes), *inputs)
        first = self.accumulation.is_first() if self.accumulates else True
        sens = self.gradient_of_loss()
        if self.scales:
            inputs = self.after(self.begin(first), *inputs)
        if self.takes_sampled_pass:  # noqa: SIM102
            if self.optimizer.statistics_schedule.is_pending():
                done, lost = self.sampled_pass(*inputs)
                inputs = self.after(done, *inputs)
                # Gradients without a number, on all devices: this drops the step.
                sens = ops.select(lost, self.not_a_number, sens)
        loss, gradients = self.passes(sens, *inputs)
        overflow = self.no
        if self.accumulates:
            gradients, last = self.accumulation(first, gradients)
            if last:
                overflow = self.finish(loss, gradients, *inputs)
        else:
            overflow = self.finish(loss, gradients, *inputs)
        loss = ops.depend(loss, overflow)
        if self.scales:
            return loss, overflow, self.scaling.scale
        return loss

    def begin(self, first: Any) -> Any:
        """Write the step's scale and copy what may have to come back; passes wait for the result."""
        copied = self.yes
        if first:
            copied = self.before_step.store()
        return self.scaling.start(), copied

    def finish(self, loss: Tensor, gradients: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """The optimizer's step; whether it was dropped."""
        gradients = self.grad_reducer(gradients)
        if not self.scales:
            return ops.depend(
                self.no, self.with_damping(ops.depend(loss, self.optimizer(gradients)), *inputs)
            )
        gradients = self.scaling.unscale(gradients)
        overflow = self.scaling.overflows(gradients)
        adjusted = self.scaling.adjust(overflow)
        if overflow:
            done = self.before_step.put_back(overflow)
        else:
            step = ops.depend(loss, self.optimizer(gradients))
            done = ops.depend(self.yes, self.with_damping(step, *inputs))
        return ops.depend(overflow, (adjusted, done))

    def gradient_of_loss(self) -> Tensor:
        """What the backward pass of a micro-batch starts with: scalar float32."""
        if self.scales:
            return self.scaling.scale * self.share
        return ops.fill(ms.float32, (), self.share)

    def passes(self, sens: Tensor, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Loss and gradients."""
        # In a function of their own: behind a branch in the same function MindSpore 2.10 compiles a forward
        # pass for each of the two, and BatchNorm's moments move twice.
        loss = self.network(*inputs)
        of_loss = ops.ones_like(loss) * ops.cast(sens, loss.dtype)
        return loss, self.grad(self.network, self.weights)(*inputs, of_loss)

    def with_damping(self, loss: Tensor, *inputs: Tensor) -> Tensor:
        """The loss, behind the damping's pass where that is due."""
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
        if self.scales:
            gradients = self.grad(self.sampled_loss, self.weights)(*inputs, self.gradient_of_loss())
        elif self.sense_flag:
            sens = ops.fill(ms.float32, (), self.sens)
            gradients = self.grad(self.sampled_loss, self.weights)(*inputs, sens)
        else:
            gradients = self.grad_no_sens(self.sampled_loss, self.weights)(*inputs)
        closed = schedule.close((gradients, self.optimizer.keep_measured(gradients)))
        done = closed, self.sampled_state.put_back(kept, closed)
        if self.scales:
            return done, self.scaling.overflows(gradients)
        return done

    def damping_pass(self, loss: Tensor, *inputs: Tensor) -> bool:
        """The loss after the step, and what its change says of the damping."""
        kept = self.forward_state.read()
        change = self.network(*self.after((loss, kept), *inputs)) - loss
        restored = self.forward_state.put_back(kept, change)
        total = self.reduce_sum(ops.cast(change, ms.float32)) * self.change_scale
        return self.optimizer.damping.schedule.adapt(ops.depend(self.optimizer.over_ranks(total), restored))


def _warn_of_reduction(network: nn.Cell, optimizer: SecondOrderOptimizer) -> None:
    # The gradient alone does not say how its loss reduces: no check of a step can find this out.
    loss = getattr(network, "_loss_fn", None)
    declared = "mean" if optimizer.mean_reduction else "sum"
    if not isinstance(loss, nn.LossBase) or not loss.reduce:
        return
    found = "mean" if loss.average else "sum"
    if found != declared:
        warn_user(
            f"reduction={declared!r} was given to {type(optimizer).__name__}, but {type(loss).__name__} "
            f"reduces by {found}: statistics and steps are off by the batch's size; give the optimizer "
            f"reduction={found!r}"
        )
