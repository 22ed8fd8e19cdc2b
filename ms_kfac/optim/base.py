"""The step that every second-order optimizer here takes; a method adds its curvature block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.capture.layer import Layer
from ms_kfac.capture.tap import SampleCounter
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.curvature.embedding import EmbeddingBlock
from ms_kfac.curvature.unit_wise import UnitWiseBlock
from ms_kfac.damping import Damping, DampingSchedule, LevenbergMarquardt
from ms_kfac.ops.counted_draws import draw_state
from ms_kfac.ops.kept_values import KeptValues
from ms_kfac.ops.on_device import OnDevice
from ms_kfac.ops.statistics import StatisticsOptions
from ms_kfac.optim.averaging import PolyakAverage
from ms_kfac.optim.inspection import Inspection
from ms_kfac.optim.loss_scale import LossScale
from ms_kfac.optim.momentum import MomentumOptimizer
from ms_kfac.optim.options import (
    check_choice,
    check_count,
    check_flag,
    check_interval,
    check_learning_rate,
    check_name,
    check_number,
    check_parameters,
    check_patterns,
)
from ms_kfac.optim.preconditioner import Preconditioner
from ms_kfac.optim.quadratic_model import QuadraticModel
from ms_kfac.optim.sharing_out import share_curvature, share_preconditioning
from ms_kfac.optim.tapping import Tapping
from ms_kfac.optim.trust_region import KLClip
from ms_kfac.parallel.agreement import warn_of_different_weights
from ms_kfac.parallel.distribution import Distribution, find_world
from ms_kfac.refresh import RefreshPolicy, ScheduleOptions
from ms_kfac.statistics.commit import CommitStatistics
from ms_kfac.statistics.measure import MeasureGradients, zero_measurements
from ms_kfac.statistics.verification import MODES, Verification

_multiply = ops.MultitypeFuncGraph("multiply")


@_multiply.register("Tensor", "Tensor")
def _multiply_gradient(scale: Tensor, gradient: Tensor) -> Tensor:
    return gradient * ops.cast(scale, gradient.dtype)


class SecondOrderOptimizer(Tapping, Inspection, MomentumOptimizer):
    """Base of the second-order optimizers.

    One step: commit what the backward passes staged, unscale the gradients, refresh the inverses when due,
    precondition, trust region, weight decay, momentum, learning rate; then set the gates for the next step.
    All state is in Parameters, so a checkpoint of the optimizer carries it.

    A subclass names itself in ``method`` and creates the block of a layer in :meth:`create_block`.
    """

    method = "abstract"
    # Whether a block asks for statistics beside its factors once it has been refreshed.
    measures_beside_factors = False

    def __init__(
        self,
        network: nn.Cell,
        learning_rate: Any,
        *,
        params: Iterable[Any] | None = None,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: Any = 0.0,
        decoupled_weight_decay: bool = False,
        damping: Damping = 1e-3,
        factor_decay: float = 0.95,
        factor_interval: int | RefreshPolicy = 10,
        inverse_interval: int | RefreshPolicy = 100,
        kl_clip: float | None = 1e-3,
        fisher: str = "empirical",
        sharing: str = "expand",
        reduction: str = "mean",
        loss_scale: Any = 1.0,
        accumulation_steps: int = 1,
        skip: Iterable[str] = (),
        averaging: float | None = None,
        normalization: str = "first_order",
        verify: str = "warn",
        name: str | None = None,
        distribution: Distribution | None = None,
    ) -> None:
        if not isinstance(network, nn.Cell):
            raise TypeError(
                f"{type(self).__name__}: the first argument must be the network (a mindspore.nn.Cell), "
                f"got {network!r}; parameter groups go into params="
            )
        learning_rate = check_learning_rate(learning_rate)
        momentum = check_number("momentum", momentum, low=0.0, high=1.0, high_open=True)
        nesterov = check_flag("nesterov", nesterov)
        decoupled = check_flag("decoupled_weight_decay", decoupled_weight_decay)
        if not isinstance(weight_decay, nn.Cell):
            weight_decay = check_number("weight_decay", weight_decay, low=0.0)
        factor_decay = check_number("factor_decay", factor_decay, low=0.0, high=1.0, high_open=True)
        factor_policy = check_interval("factor_interval", factor_interval)
        inverse_policy = check_interval("inverse_interval", inverse_interval)
        if kl_clip is not None:
            kl_clip = check_number("kl_clip", kl_clip, low=0.0, low_open=True)
        scale = LossScale.of(loss_scale)
        verify = check_choice("verify", verify, MODES)
        self.prefix = self.method if name is None else check_name("name", name)
        patterns = check_patterns("skip", skip)
        damping_schedule = DampingSchedule(damping)
        if averaging is not None:
            averaging = check_number("averaging", averaging, low=0.0, high=1.0, high_open=True)
        fisher = check_choice("fisher", fisher, ("empirical", "sampled"))

        sharing = check_choice("sharing", sharing, ("expand", "reduce"))
        normalization = check_choice("normalization", normalization, ("first_order", "unit_wise"))
        mean_reduction = check_choice("reduction", reduction, ("mean", "sum")) == "mean"
        accumulation_steps = check_count("accumulation_steps", accumulation_steps)

        adapts = isinstance(damping, LevenbergMarquardt)
        if accumulation_steps > 1 and (fisher == "sampled" or adapts):
            raise ValueError(
                "accumulation_steps must be 1 with fisher='sampled' or damping=LevenbergMarquardt(...), as "
                f"the training cell takes one backward pass a step, got {accumulation_steps!r}"
            )
        world = find_world(distribution)
        if world is not None and mean_reduction and not world.averages_gradients:
            raise ValueError(
                "gradients_mean must be True in mindspore.set_auto_parallel_context with reduction='mean', "
                "so that ranks' gradients are averaged like samples' losses, got False"
            )
        trained = network.trainable_params() if params is None else check_parameters(params)
        super().__init__(
            learning_rate,
            trained,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled,
        )
        self.__dict__["_own_scale"] = scale
        self.use_loss_scale(None)
        self.centralizes = self.is_group and any(self.grad_centralization_flags)

        self.sharing = sharing
        self.mean_reduction = mean_reduction
        self.accumulation_steps = accumulation_steps
        self.factor_policy = factor_policy
        self.inverse_policy = inverse_policy
        self.damping = damping_schedule
        self.clips = kl_clip is not None
        # Never called when switched off; a Cell all the same, because a compiled step parses it either way.
        self.trust_region = KLClip(1.0 if kl_clip is None else kl_clip)
        self.averages = averaging is not None
        self.average = PolyakAverage(self.parameters, 0.0 if averaging is None else averaging)

        self.statistics_options = StatisticsOptions(
            sharing=sharing,
            mean_reduction=mean_reduction,
            gradient_scale=float(accumulation_steps),
            separate=factor_policy.separate,
        )
        # What every block is made with.
        self.for_blocks: dict[str, Any] = {
            "prefix": self.prefix,
            "options": self.statistics_options,
            "period": accumulation_steps,
        }
        self._patterns, self._normalization_blocks = patterns, normalization == "unit_wise"
        self._layers, self._first_order = self._discover(network)
        self._warn_of_idle_patterns(network)
        self.blocks = nn.CellList([self._block_of(layer) for layer in self._layers], auto_prefix=False)
        stopped = inverse_policy.stopped_layers(len(self.blocks), self.prefix)
        by_layer = self.measures_beside_factors and inverse_policy.by_layer
        schedule_options = ScheduleOptions(self.prefix, fisher == "sampled", stopped, by_layer)
        self.statistics_schedule = factor_policy.for_statistics(list(self.blocks), schedule_options)
        gates = self.statistics_schedule.gates
        self.inverse_schedule = inverse_policy.for_inverses(
            list(self.blocks), self.damping, gates, stopped, self.prefix
        )
        self.__dict__["_synchronization"] = None
        self.distributed = world is not None and len(self.blocks) > 0
        if world is not None and self.distributed:
            policies = (factor_policy, inverse_policy)
            by_layer = self.inverse_schedule.by_layer
            self.curvature = share_curvature(
                list(self.blocks), world, distribution, policies, damping, by_layer=by_layer
            )
            self.inverse_schedule.distribute(self.curvature)
        if world is not None:
            warn_of_different_weights(self.parameters, world.size)
        self.averages_new = self.distributed and self.curvature.averages_new
        self._counter = None if mean_reduction else SampleCounter(f"{self.prefix}.samples")
        self.__dict__["counting_record"] = None
        self._attach_taps()
        self.fisher = fisher
        # The optimizer's, so that its checkpoint carries them on.
        self.draws: Any = draw_state(f"{self.prefix}.draws") if fisher == "sampled" else None
        # The same seed on all ranks, as equal weights need it, must not draw the same targets.
        self.draw_stream = 0 if world is None else world.rank
        self.adapts_damping = adapts
        self.needs_train_cell = fisher == "sampled" or adapts
        # Set by what makes the passes that these take beside the ordinary one.
        self.has_train_cell = not self.needs_train_cell

        self.one = Tensor(1.0, ms.float32)
        self.assign = ops.Assign()
        positions = {id(parameter): position for position, parameter in enumerate(self.parameters)}
        self.positions = tuple(tuple(positions[id(p)] for p in layer.parameters()) for layer in self._layers)
        preconditioned = {position for layer_positions in self.positions for position in layer_positions}
        self.preconditioned = tuple(position in preconditioned for position in range(len(self.parameters)))
        shares_gate = len(set(gates)) == 1
        self.verification = Verification(self.layers, verify, type(self).__name__, shares_gate=shares_gate)
        self.commit = CommitStatistics(list(self.blocks), factor_decay, self.verification, name=self.prefix)
        parameters = [layer.parameters() for layer in self._layers]
        self.measure = MeasureGradients(parameters, self.positions, len(self.parameters))
        # Of the pass over sampled targets, from which the statistics come then.
        self.sampled = fisher == "sampled"
        self.sampled_measured = Parameter(
            zero_measurements(len(self.blocks)), name=f"{self.prefix}.sampled_measured", requires_grad=False
        )
        self.records = ParameterTuple([block.record for block in self.blocks])
        self.preconditioner: Any = Preconditioner(list(self.blocks), self.positions, len(self.parameters))
        if self.distributed and self.curvature.exchange == "gradients":
            self.preconditioner = share_preconditioning(
                list(self.blocks),
                self.curvature,
                self.positions,
                self.parameters,
                self.inverse_schedule.refreshes,
            )
        self.sources = self.preconditioner.sources
        owners = {position: 1 + index for index, own in enumerate(self.positions) for position in own}
        self.outcome_of_product = Tensor([owners[p] for p in self.preconditioner.order] or [0], ms.int32)
        self.gather = ops.Gather()
        self.create_momentum_step([flag and self.clips for flag in self.preconditioned], self.sources)
        self.quadratic_model = QuadraticModel(list(self.blocks), self.positions)
        self.weights_before = KeptValues(self.parameters if self.adapts_damping else ())
        unused = self.curvature.unused() if self.distributed else ()
        self.on_device = OnDevice([p for p in self.get_parameters() if id(p) not in unused])

    def create_block(self, layer: Layer) -> CurvatureBlock:
        """The method's approximation of the Fisher block of a dense layer or a convolution.

        Args:
            layer: the layer.

        Raises:
            TypeError: if the subclass does not define it.
        """
        raise TypeError(f"{type(self).__name__} does not define create_block(layer)")

    def _block_of(self, layer: Layer) -> CurvatureBlock:
        if layer.kind == "normalization":
            return UnitWiseBlock(layer, **self.for_blocks)
        if layer.kind == "embedding":
            return EmbeddingBlock(layer, **self.for_blocks)
        return self.create_block(layer)

    def __call__(self, *inputs: Any) -> Any:
        outputs = super().__call__(*inputs)
        self.statistics_schedule.expire()
        return outputs

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> bool:
        if not self.has_train_cell:
            raise RuntimeError(
                "fisher='sampled' and damping=LevenbergMarquardt(...) take passes of their own: train with "
                "ms_kfac.TrainOneStepCell or ms_kfac.Model"
            )
        gradients = self.on_device(gradients)
        self.statistics_schedule.count(gradients)
        if len(self.blocks) > 0:
            self.commit_statistics(gradients)
        samples = self.counted_samples(gradients)
        if self.centralizes:
            gradients = self.gradients_centralization(gradients)
        gradients = self.mean_gradients(self.unscaled(gradients), samples)
        if len(self.blocks) > 0:
            self.refresh_inverses()
        learning_rate = self.get_lr()
        updates, scale = gradients, self.one
        if len(self.blocks) > 0:
            preconditioned, products = self.preconditioner(gradients)
            # Each parameter finds its own among them by its source.
            updates = (*preconditioned, *gradients)
            if self.clips:
                # A layer without statistics is first-order: its gradient passes unchanged and unclipped.
                present = self.gather(self.commit.outcome, self.outcome_of_product, 0)
                scale = self.trust_region(products * present, self.product_rates(learning_rate))
            else:
                # Used, or the compiler warns at each compilation of an output that nobody reads.
                scale = ops.depend(self.one, products)
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

    def commit_statistics(self, gradients: tuple[Tensor, ...]) -> bool:
        """Verify the staged batches against the delivered gradients, and commit them, where there are any."""
        due = self.statistics_schedule.number_pending()
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

    def keep_measured(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Measure the gradients of the pass over sampled targets, to verify its statistics against them."""
        due = self.statistics_schedule.number_pending()
        return self.assign(self.sampled_measured, self.measure(due, gradients))

    def use_loss_scale(self, scale: LossScale | None) -> None:
        """Let the training cell say by which number it scales the loss.

        Args:
            scale: the scale; None for the optimizer's own option.
        """
        scale = self.__dict__["_own_scale"] if scale is None else scale
        self.__dict__["scale_source"] = scale.source
        self.loss_scale = scale.number
        self.gradients_unscaled = scale.gradients_unscaled
        self.follows_scale = scale.source is not None
        self.need_scale = scale.number != 1.0
        self.reciprocal_scale = Tensor(1.0 / scale.number, ms.float32)

    def inverse_scale(self) -> Tensor:
        """One over the loss scale of this step's passes, scalar float32."""
        if self.follows_scale:
            return ops.reciprocal(ops.cast(self.scale_source, ms.float32).reshape(()))
        return self.reciprocal_scale

    def unscaled(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients of the loss without its scale."""
        if self.follows_scale and not self.gradients_unscaled:
            return self.map_(ops.partial(_multiply, self.inverse_scale()), gradients)
        return self.scale_grad(gradients)

    def counters(self) -> list[Parameter]:
        """What backward passes count: the samples, for losses that are sums."""
        return [] if self._counter is None else [self._counter.samples]

    def counted_samples(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Samples of this step's backward passes, for losses that are sums."""
        if self._counter is None:
            return self.one
        return self.over_ranks(self._counter.take(gradients[0], self.counting_record))

    def over_ranks(self, value: Tensor) -> Tensor:
        """A scalar of this rank's batch, averaged or summed over ranks as gradients are."""
        return self.curvature.as_gradients(value) if self.distributed else value

    def mean_gradients(self, gradients: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the mean loss, whatever the reduction."""
        if self._counter is None:
            return gradients
        return self.map_(ops.partial(_multiply, self.mean_factor(samples)), gradients)

    def mean_factor(self, samples: Tensor) -> Any:
        """What turns the reduced loss, as delivered, into the mean loss."""
        return 1.0 if self._counter is None else self.accumulation_steps / samples

    def refresh_inverses(self) -> bool:
        """Recompute the blocks' inverses where the policy says so."""
        return self.inverse_schedule(self.global_step)

    def preconditioned_gradients(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """U of every preconditioned parameter in its place, the others' gradients as they are."""
        preconditioned, _ = self.preconditioner(gradients)
        candidates = (*preconditioned, *gradients)
        updates: tuple[Tensor, ...] = ()
        for source in self.sources:
            updates = (*updates, candidates[source])
        return updates

    def product_rates(self, learning_rate: Any) -> Any:
        """Learning rates in the order of the preconditioner's inner products, or the one of all."""
        if not self.is_group_lr:
            return learning_rate
        rates: tuple[Tensor, ...] = ()
        for position in self.preconditioner.order:
            rates = (*rates, learning_rate[position])
        return ops.stack(rates)

    def predicted_step(
        self,
        learning_rate: Any,
        gradients: tuple[Tensor, ...],
        updates: tuple[Tensor, ...],
        scale: Tensor,
        samples: Tensor,
    ) -> bool:
        """Update the parameters; where the damping is due, also predict what that does to the loss."""
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
        """What a method does after the weights have moved, with the step's number not yet counted up."""
        return True

    def prepare_statistics(self) -> bool:
        """Set the gates for the next step."""
        return self.statistics_schedule(self.global_step)
