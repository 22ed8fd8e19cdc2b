"""The training step shared by all second-order optimizers, as one compiled graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from ms_kfac.capture.tap import SampleCounter
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.step.check_step import CheckStep
from ms_kfac.ops.step.gradient_views import GradientViews
from ms_kfac.optim.first_order import FirstOrderOptimizer
from ms_kfac.optim.loss_scale import LossScale
from ms_kfac.optim.pause import refusal

_multiply = ops.MultitypeFuncGraph("multiply")


@_multiply.register("Tensor", "Tensor")
def _multiply_gradient(scale: Tensor, gradient: Tensor) -> Tensor:
    return gradient * ops.cast(scale, gradient.dtype)


def check_gradient_count(gradients: int, parameters: int) -> None:
    """Check that there is one gradient per parameter; in a compiled step, when it is compiled.

    Args:
        gradients: number of gradients.
        parameters: number of parameters.

    Raises:
        ValueError: if they differ.
    """
    if gradients != parameters:
        raise ValueError(f"gradients must hold one Tensor per parameter ({parameters}), got {gradients}")


class SecondOrderStep(FirstOrderOptimizer):
    """The training step; :class:`ms_kfac.optim.base.SecondOrderOptimizer` assembles its parts.

    The order of a step: commit the staged statistics, unscale the gradients, refresh the inverses when due,
    precondition, check that the step is finite, apply trust region, weight decay, momentum and learning rate,
    set the gates for the next step.
    """

    mean_reduction: bool
    own_scale: LossScale
    accumulation_steps: int
    distributed: bool
    has_lone_blocks: bool
    counts_samples: bool
    sample_counters: Sequence[SampleCounter]
    damping: Any
    statistics_schedule: Any
    inverse_schedule: Any
    curvature: Any
    commit: Any
    commit_lone: Any
    no_statistics: Tensor
    views: GradientViews
    check_step: CheckStep
    raises_nonfinite: bool
    check_finite: Callable[[], None]

    # Number of paused() blocks around the current line.
    pauses = 0

    def __call__(self, *inputs: Any) -> Any:
        if self.pauses > 0:
            raise RuntimeError(refusal(self))
        outputs = super().__call__(*inputs)
        self.statistics_schedule.expire()
        if self.raises_nonfinite:
            self.check_finite()
        return outputs

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> bool:
        if not self.has_train_cell:
            raise RuntimeError(
                "fisher='sampled' and damping=LevenbergMarquardt(...) need additional passes: train with "
                "ms_kfac.TrainOneStepCell or ms_kfac.Model"
            )
        check_gradient_count(len(gradients), len(self.parameters))
        gradients = self.on_device(gradients)
        self.statistics_schedule.count(gradients)
        due = self.no_statistics
        if len(self.blocks) > 0:
            due = self.statistics_schedule.number_pending()
            self.commit_statistics(gradients, due)
        samples = self.counted_samples(gradients)
        if self.centralizes:
            gradients = self.gradients_centralization(gradients)
        gradients = self.mean_gradients(self.unscaled(gradients), samples)
        if self.has_lone_blocks:
            self.commit_lone_statistics(gradients, samples)
        if len(self.blocks) > 0:
            self.refresh_inverses()
        learning_rate = self.get_lr()
        updates, scale, products = gradients, self.one, self.one
        if len(self.blocks) > 0:
            updates, products = self.preconditioned_updates(gradients)
            if self.clips:
                # A layer without statistics is first-order: its gradient is not part of the step's length.
                present = self.gather(self.outcomes(), self.outcome_of_product, 0)
                rates = self.product_rates(learning_rate)
                scale = self.trust_region(products * present, rates, self.global_step)
        scale = self.check_step(self.global_step, due, scale, products, gradients)
        if self.clips:
            scale = self.assign(self.last_clip, scale)
        if self.adapts_damping:
            self.predicted_step(learning_rate, gradients, updates, scale, samples)
        else:
            self.update_parameters(learning_rate, updates, scale)
        if self.averages:
            self.average(self.global_step, self.parameters)
        if len(self.blocks) > 0:
            self.finish_step()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        if len(self.blocks) > 0:
            self.prepare_statistics()
        return True

    def commit_statistics(self, gradients: tuple[Tensor, ...], due: Tensor) -> bool:
        """Verify the staged batches against the received gradients and commit them, if there are any.

        Args:
            gradients: the received gradients.
            due: number of gates that were open in this step.

        Returns:
            True. A Tensor would not be ordered behind the branch.
        """
        unscale, expected = self.inverse_scale(), self.one
        if self.sampled:
            measured = self.sampled_measured
        else:
            measured = self.measure(due, gradients)
            expected = unscale if self.gradients_unscaled else expected
        if self.distributed:  # noqa: SIM102
            if due > 0:
                self.curvature.meet_products(self.records)
        self.commit(due, ops.stack((unscale, expected)), measured)
        if self.averages_new:  # noqa: SIM102
            if due > 0:
                self.curvature.average_new(self.statistics_schedule.taken())
        return True

    def commit_lone_statistics(self, gradients: tuple[Tensor, ...], samples: Tensor) -> bool:
        """Stage and commit the statistics of Parameters outside layers, from gradients of the mean loss."""
        due = self.statistics_schedule.number_pending()
        if due > 0:
            if self.distributed:
                samples = samples / self.curvature.scale
            self.stage_lone(gradients, samples)
        self.commit_lone(due, self.ones, self.no_measurements)
        return True

    def preconditioned_updates(self, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Updates, of which ``sources`` holds the index of each parameter's, and the layers' products."""
        if self.views.changes:
            viewed = self.views(gradients)
            preconditioned, products = self.preconditioner(viewed)
            return self.views.joined(preconditioned, viewed, gradients), products
        preconditioned, products = self.preconditioner(gradients)
        return (*preconditioned, *gradients), products

    def outcomes(self) -> Tensor:
        """Commit outcomes: first of layers, then of Parameters outside layers."""
        if self.has_lone_blocks:
            return ops.concat((self.commit.outcome, self.commit_lone.outcome))
        return self.commit.outcome

    def keep_measured(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Measure the gradients of the pass over sampled targets, to verify its statistics against them."""
        due = self.statistics_schedule.number_pending()
        return self.assign(self.sampled_measured, self.measure(due, gradients))

    def use_loss_scale(self, scale: LossScale | None) -> None:
        """Set the loss scale; the training cell calls this.

        Args:
            scale: the loss scale. None selects the optimizer's ``loss_scale`` option.
        """
        scale = self.own_scale if scale is None else scale
        self.__dict__["scale_source"] = scale.source
        self.loss_scale = scale.number
        self.gradients_unscaled = scale.gradients_unscaled
        self.follows_scale = scale.source is not None
        self.need_scale = scale.number != 1.0
        self.reciprocal_scale = Tensor(1.0 / scale.number, ms.float32)

    def inverse_scale(self) -> Tensor:
        """Reciprocal of the loss scale of this step, scalar float32."""
        if self.follows_scale:
            return ops.reciprocal(ops.cast(self.scale_source, ms.float32).reshape(()))
        return self.reciprocal_scale

    def unscaled(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients of the unscaled loss."""
        if self.follows_scale and not self.gradients_unscaled:
            return self.map_(ops.partial(_multiply, self.inverse_scale()), gradients)
        return self.scale_grad(gradients)

    def counters(self) -> list[Parameter]:
        """Parameters that count samples during backward passes; empty if counts are unused."""
        return [parameter for counter in self.sample_counters for parameter in (counter.sums, counter.last)]

    def counted_samples(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Samples in this step, scalar float32: 1 if counts are unused, 0 without a backward pass."""
        if not self.counts_samples:
            return self.one
        samples = self.one * 0.0
        for index in range(len(self.sample_counters)):
            calls = element(self.commit.calls, self.counting_layers[index])
            counted = self.sample_counters[index].take(gradients[0], calls)
            samples = ops.where(samples > 0, samples, counted)
        return self.over_ranks(samples)

    def over_ranks(self, value: Tensor) -> Tensor:
        """Average or sum a scalar of this rank's batch over ranks, as for gradients."""
        return self.curvature.as_gradients(value) if self.distributed else value

    def mean_gradients(self, gradients: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the mean loss for either reduction."""
        if self.mean_reduction:
            return gradients
        return self.map_(ops.partial(_multiply, self.mean_factor(samples)), gradients)

    def mean_factor(self, samples: Tensor) -> Any:
        """Factor that converts the reduced loss into the mean loss; 0 if no samples were counted."""
        if self.mean_reduction:
            return 1.0
        # An unknown number of samples must not make the step as many times too long.
        counted = ops.cast(samples > 0, ms.float32) * self.accumulation_steps
        return counted / ops.where(samples > 0, samples, self.one)

    def refresh_inverses(self) -> bool:
        """Recompute the inverses of the blocks when the policy requires it."""
        return self.inverse_schedule(self.global_step)

    def preconditioned_gradients(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """In parameter order, U of preconditioned parameters and the unchanged gradients of the others."""
        candidates, _ = self.preconditioned_updates(gradients)
        updates: tuple[Tensor, ...] = ()
        for source in self.sources:
            updates = (*updates, candidates[source])
        return updates

    def product_rates(self, learning_rate: Any) -> Any:
        """Learning rates in the order of the preconditioner's inner products, or the common one."""
        if not self.is_group_lr:
            return learning_rate
        rates: tuple[Tensor, ...] = ()
        for position in self.preconditioner.order:
            rates = (*rates, learning_rate[self.views.owners[position]])
        return ops.stack(rates)

    def predicted_step(
        self,
        learning_rate: Any,
        gradients: tuple[Tensor, ...],
        updates: tuple[Tensor, ...],
        scale: Tensor,
        samples: Tensor,
    ) -> bool:
        """Update the parameters; when a damping update is due, also predict the change of the loss."""
        rule: Any = self.damping.schedule
        if rule.is_due(self.global_step + 1):
            before = self.weights_before.read()
            self.update_parameters(learning_rate, ops.depend(updates, before), scale)
            step = self.weights_before.moved(before)
            if self.distributed:
                self.curvature.average_due()
            change = self.quadratic_model(gradients, step, self.damping(self.global_step))
            rule.expect(change / self.mean_factor(samples))
        else:
            self.update_parameters(learning_rate, updates, scale)
        return True

    def finish_step(self) -> bool:
        """Hook of a method after the weight update, before ``global_step`` increases."""
        return True

    def prepare_statistics(self) -> bool:
        """Set the gates for the next step."""
        return self.statistics_schedule(self.global_step)
