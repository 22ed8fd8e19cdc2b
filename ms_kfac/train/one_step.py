"""The training cell, with the additional passes that some options need."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.capture.batch_norm_buffers import batch_norm_buffers
from ms_kfac.ops.graph.counter_based_rng import CounterBasedRNG
from ms_kfac.ops.graph.device_residency import DeviceResidency
from ms_kfac.ops.graph.snapshot import Snapshot
from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.optim.loading import set_in_place
from ms_kfac.optim.loss_scale import LossScale
from ms_kfac.train.accumulation import GradientAccumulation
from ms_kfac.train.loss_scaling import LossScaling
from ms_kfac.train.rollback import Rollback
from ms_kfac.train.sampled_targets import SampledLoss, SampleTargets, targets_cell
from ms_kfac.user_warning import warn_user
from ms_kfac.values import check_count, shown


class TrainOneStepCell(nn.TrainOneStepCell):
    r"""``mindspore.nn.TrainOneStepCell`` with the additional passes that options of this package need.

    * ``fisher="sampled"``: on steps that take statistics, a forward and backward pass on targets sampled from
      the model's predictive distribution (Martens & Grosse 2015, section 5). The statistics come from this
      pass only.
    * ``damping=LevenbergMarquardt(...)``: on steps that adapt the damping, a forward pass that computes the
      loss of the same batch after the step.

    These passes do not change the weights or the moving moments of BatchNorm, and cost nothing on other
    steps. All other optimizers, including first-order ones, are trained as by ``nn.TrainOneStepCell``.

    With ``scale_sense``, the loss is multiplied by a scale that follows MindSpore's rule, as in
    ``nn.TrainOneStepWithLossScaleCell``. Here this also works on CPUs. Statistics do not depend on the scale.
    A step that overflows changes the scale only: weights, momentum, statistics, counters and the moving
    moments of BatchNorm keep their values. The next step then takes the statistics that were due.

    With ``accumulation_steps``, each call processes one micro-batch. After that many calls, the optimizer
    takes a step with the mean of their gradients; the statistics include all micro-batches of the step. If
    one micro-batch overflows, the whole step is dropped.

    By default, targets are sampled for ``nn.CrossEntropyLoss`` and ``nn.SoftmaxCrossEntropyWithLogits``
    (labels from softmax(logits)), and for ``nn.MSELoss``. ``nn.MSELoss`` is a Gaussian negative
    log-likelihood. Its variance is d / 2 if it averages over the d outputs of a sample, and 1 / 2 if it sums.
    Class weights and label smoothing apply to sampled labels as to given labels.

    Args:
        network: the network with its loss. With ``fisher="sampled"``, an ``nn.WithLossCell``, or a Cell with
            a ``backbone_network`` or ``_backbone`` and a ``_loss_fn``, whose last input is the target.
        optimizer: the optimizer.
        sens: the loss scale, by which the gradient is multiplied; None for 1. The optimizer's ``loss_scale``
            must equal it, unless the network itself scales its loss. Default: None.
        sample_targets: how to sample targets with ``fisher="sampled"``; unused otherwise. None infers it from
            the class of the loss. "cross_entropy" samples int32 labels, with classes on axis 1.
            "squared_error" has unit variance, as for :math:`\frac12 \|f - y\|^2`. A Cell maps outputs to
            sampled targets; in a distributed run it must sample differently on each rank. Default: None.
        scale_sense: a Cell that updates the loss scale: ``nn.DynamicLossScaleUpdateCell`` or
            ``nn.FixedLossScaleUpdateCell``. It requires ``sens=None``, and ``loss_scale=1`` in the optimizer.
            Default: None.
        accumulation_steps: number of micro-batches per step. It must equal the optimizer's
            ``accumulation_steps``, if the optimizer has that option. Default: 1.

    Inputs:
        - **inputs** (tuple[Tensor]) - inputs of the network.

    Outputs:
        Tensor, the loss before the step. With ``scale_sense``, a tuple of the loss, whether the step was
        dropped because of overflow (bool), and the loss scale.

    Raises:
        TypeError: if targets can't be sampled for this loss or network, or ``scale_sense`` or
            ``accumulation_steps`` has the wrong type.
        ValueError: if ``sample_targets`` is an unknown string, ``sens`` is 0, ``accumulation_steps`` differs
            from the optimizer's, or ``scale_sense`` is combined with another loss scale.
        NonFiniteError: raised by a step of an optimizer with ``on_nonfinite="raise"``.

    Platforms: CPU, GPU, Ascend (MindSpore operators).

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
                f"got {accumulation_steps!r}; pass the same number to both"
            )
        if scale_sense is not None:
            own = optimizer.own_scale if second_order else LossScale()
            if sens is not None or own.source is not None or own.number != 1.0:
                own_scale = own.number if own.source is None else own.source
                raise ValueError(
                    "scale_sense must be None unless sens is None and the optimizer has loss_scale=1, as the "
                    f"cell itself scales and unscales; got sens={sens!r} and loss_scale={shown(own_scale)}"
                )
        super().__init__(network, optimizer, sens)
        self.raises_nonfinite = second_order and optimizer.raises_nonfinite
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
                    f"targets can be sampled from its outputs; got {type(network).__name__}"
                )
            draws = CounterBasedRNG(optimizer.draws, optimizer.rng_stream)
            targets = targets_cell(sample_targets, loss, draws)
            self.sampled_loss = SampledLoss(backbone, loss, targets)
            self.sampled_loss.set_grad()
            self.sampled_state = Snapshot(batch_norm_buffers(network) + optimizer.counters())
        if self.adapts_damping:
            self.forward_state = Snapshot(batch_norm_buffers(network))
            self.reduce_sum = ops.ReduceSum()
        self.scales = scale_sense is not None
        self.accumulates = accumulation_steps > 1
        # Whether the optimizer's step is in a branch of the graph.
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
            optimizer.verification.calls.announced = accumulation_steps
            optimizer.has_train_cell = True
        set_in_place(self.get_parameters())

    def create_branches(self, scale_sense: nn.Cell | None, accumulation_steps: int) -> None:
        """Create the parts of a step that is conditional on the last micro-batch or on overflow."""
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

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        outputs = super().__call__(*inputs, **named)
        # A compiled step can't raise.
        if self.raises_nonfinite:
            self.optimizer.check_finite()
        return outputs

    def construct(self, *inputs: Tensor) -> Any:
        if self.takes_step_if:
            return self.step_if(*inputs)
        # Nested: the outer condition is a constant of compilation; the inner condition needs it to be true.
        if self.takes_sampled_pass:  # noqa: SIM102
            if self.optimizer.statistics_schedule.is_pending():
                inputs = self.after(self.sampled_pass(*inputs), *inputs)
        loss = super().construct(*inputs)
        return self.with_damping(loss, *inputs)

    def step_if(self, *inputs: Tensor) -> Any:
        """Process a micro-batch; take the optimizer's step if it was the last one and nothing overflowed."""
        inputs = self.after(self.on_device(self.yes), *inputs)
        first = self.accumulation.is_first() if self.accumulates else True
        sens = self.gradient_of_loss()
        if self.scales:
            inputs = self.after(self.begin(first), *inputs)
        if self.takes_sampled_pass:  # noqa: SIM102
            if self.optimizer.statistics_schedule.is_pending():
                done, lost = self.sampled_pass(*inputs)
                inputs = self.after(done, *inputs)
                # NaN in the gradients reaches all ranks through the reduction, so that all drop the step.
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
        """Store the step's scale, and copy the state for a rollback. Passes must wait for the result."""
        copied = self.yes
        if first:
            copied = self.before_step.store()
        return self.scaling.start(), copied

    def finish(self, loss: Tensor, gradients: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """Take the optimizer's step, and return whether it was dropped."""
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
        """The initial gradient of a micro-batch's backward pass, scalar float32."""
        if self.scales:
            return self.scaling.scale * self.share
        return ops.fill(ms.float32, (), self.share)

    def passes(self, sens: Tensor, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute loss and gradients."""
        # In a separate function: after a branch in the same function, MindSpore 2.10 compiles a forward pass
        # for each of the two, and updates the moments of BatchNorm twice.
        loss = self.network(*inputs)
        of_loss = ops.ones_like(loss) * ops.cast(sens, loss.dtype)
        return loss, self.grad(self.network, self.weights)(*inputs, of_loss)

    def with_damping(self, loss: Tensor, *inputs: Tensor) -> Tensor:
        """Return the loss, after the damping's pass if it is due."""
        if self.adapts_damping:  # noqa: SIM102
            if self.optimizer.damping.schedule.is_due(self.optimizer.global_step):
                loss = ops.depend(loss, self.damping_pass(loss, *inputs))
        return loss

    def after(self, token: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Make a pass on the inputs wait for the token."""
        return (ops.depend(inputs[0], token), *inputs[1:])

    def sampled_pass(self, *inputs: Tensor) -> Any:
        """Run forward and backward on sampled targets. It changes the statistics only."""
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
        """Compute the loss after the step, and adapt the damping to its change."""
        kept = self.forward_state.read()
        change = self.network(*self.after((loss, kept), *inputs)) - loss
        restored = self.forward_state.put_back(kept, change)
        total = self.reduce_sum(ops.cast(change, ms.float32))
        if not self.scales:
            # The part of the loss scale that the network itself applies: all of it but `sens`.
            total = total * self.optimizer.inverse_scale() * self.sens
        return self.optimizer.damping.schedule.adapt(ops.depend(self.optimizer.over_ranks(total), restored))


def _warn_of_reduction(network: nn.Cell, optimizer: SecondOrderOptimizer) -> None:
    # Gradients do not reveal how their loss reduces, so no check during a step can detect this.
    loss = getattr(network, "_loss_fn", None)
    declared = "mean" if optimizer.mean_reduction else "sum"
    if not isinstance(loss, nn.LossBase):
        return
    # MindSpore's cells return what the loss returns. Another cell may average a loss without reduction.
    if not loss.reduce and not type(network).__module__.startswith("mindspore."):
        return
    found = "mean" if loss.reduce and loss.average else "sum"
    if found != declared:
        reduces = "reduces by" if loss.reduce else "has reduction='none', whose gradient is of the"
        warn_user(
            f"reduction={declared!r} was passed to {type(optimizer).__name__}, but {type(loss).__name__} "
            f"{reduces} {found}: statistics and steps are wrong by a factor of the batch size; pass "
            f"reduction={found!r} to the optimizer"
        )
