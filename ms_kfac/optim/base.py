"""Base class of the optimizers: checks options and assembles the step; a method adds its curvature block."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.capture.discover import kinds_of, lone_parameters, outside_parameters
from ms_kfac.capture.layer import OTHER
from ms_kfac.damping import LevenbergMarquardt
from ms_kfac.ops.graph.counter_based_rng import rng_state
from ms_kfac.ops.graph.device_residency import DeviceResidency
from ms_kfac.ops.graph.snapshot import Snapshot
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions
from ms_kfac.ops.step.check_step import CheckStep
from ms_kfac.ops.step.gradient_views import GradientViews
from ms_kfac.ops.step.number_schedule import PositiveNumbers, positive_schedule
from ms_kfac.ops.step.parameter_rows import parameter_of
from ms_kfac.optim.adam import MOMENTUM, AdamW, first_order_rule
from ms_kfac.optim.averaging import PolyakAverage
from ms_kfac.optim.block_choice import BlockChoice, Blocks
from ms_kfac.optim.block_creation import create_blocks
from ms_kfac.optim.distribute import (
    check_mean_over_ranks,
    distribute_curvature,
    distribute_preconditioning,
)
from ms_kfac.optim.introspection import Introspection
from ms_kfac.optim.layer_verification import verification_of
from ms_kfac.optim.loading import set_in_place
from ms_kfac.optim.loss_scale import LossScale
from ms_kfac.optim.methods import DAMPING_SPLITS
from ms_kfac.optim.options import (
    check_accumulation,
    check_interval,
    check_learning_rate,
    check_name,
    check_network,
    check_patterns,
    check_weight_decay,
    refuse_positional,
)
from ms_kfac.optim.parameter_groups import check_parameters
from ms_kfac.optim.parameter_names import name_prefix, prefix_names
from ms_kfac.optim.preconditioner import Preconditioner
from ms_kfac.optim.quadratic_model import QuadraticModel
from ms_kfac.optim.slow_convolutions import warn_of_slow_convolutions
from ms_kfac.optim.step import SecondOrderStep
from ms_kfac.optim.tap_manager import TapManager
from ms_kfac.optim.trust_region import KLClip
from ms_kfac.parallel.distribution import Distribution, World, find_world
from ms_kfac.parallel.network_consistency import warn_of_different_weights
from ms_kfac.refresh import RefreshPolicy, ScheduleOptions
from ms_kfac.statistics.commit import CommitStatistics
from ms_kfac.statistics.lone import StageLone
from ms_kfac.statistics.measure import MeasureGradients, zero_measurements
from ms_kfac.statistics.nonfinite import MODES as NONFINITE_MODES
from ms_kfac.statistics.verification import MODES, Verification
from ms_kfac.user_warning import warn_user
from ms_kfac.values import check_choice, check_flag, check_number, plain


class SecondOrderOptimizer(TapManager, Introspection, SecondOrderStep):
    """Base class of the second-order optimizers: checks the options and assembles the step.

    All state is in Parameters, so a checkpoint of the optimizer contains it.

    A subclass sets ``method`` to its name and passes its block to the constructor
    (:func:`ms_kfac.optim.block_choice.with_default`).
    """

    method = "abstract"
    # Whether a refreshed block requests statistics in addition to its factors.
    corrects_eigenvalues = False

    def __init__(
        self,
        network: nn.Cell,
        learning_rate: Any,
        *positional: Any,
        params: Iterable[Any] | None = None,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: Any = 0.0,
        decoupled_weight_decay: bool = False,
        first_order: str | AdamW = MOMENTUM,
        damping: PositiveNumbers = 0.1,
        factor_decay: float = 0.95,
        factor_interval: int | RefreshPolicy = 10,
        inverse_interval: int | RefreshPolicy = 100,
        kl_clip: PositiveNumbers | None = 3e-4,
        fisher: str = "empirical",
        sharing: str = "expand",
        reduction: str = "mean",
        loss_scale: Any = 1.0,
        accumulation_steps: int = 1,
        skip: Iterable[str] = (),
        averaging: float | None = None,
        normalization: str = "first_order",
        blocks: Blocks | None = None,
        damping_split: str = "pi",
        verify: str = "warn",
        on_nonfinite: str = "skip",
        name: str | None = None,
        distribution: Distribution | None = None,
    ) -> None:
        check_network(type(self).__name__, network)
        refuse_positional(type(self).__name__, positional)
        learning_rate = check_learning_rate(learning_rate)
        momentum = check_number("momentum", momentum, low=0.0, high=1.0, high_open=True)
        nesterov = check_flag("nesterov", nesterov)
        decoupled = check_flag("decoupled_weight_decay", decoupled_weight_decay)
        weight_decay = check_weight_decay(weight_decay)
        settings = first_order_rule(first_order)
        factor_decay = check_number("factor_decay", factor_decay, low=0.0, high=1.0, high_open=True)
        factor_policy = check_interval("factor_interval", factor_interval)
        inverse_policy = check_interval("inverse_interval", inverse_interval)
        if isinstance(kl_clip, LevenbergMarquardt):
            raise TypeError(
                f"kl_clip must not be a LevenbergMarquardt, which adapts a damping, got {kl_clip!r}"
            )
        # A Cell even when unused, because the compiler parses the call in either case.
        trust_region = KLClip(1.0 if kl_clip is None else kl_clip)
        scale = LossScale.of(loss_scale)
        verify = check_choice("verify", verify, MODES)
        on_nonfinite = check_choice("on_nonfinite", on_nonfinite, NONFINITE_MODES)
        patterns = check_patterns("skip", skip)
        damping_schedule = positive_schedule("damping", damping)
        if averaging is not None:
            averaging = check_number("averaging", averaging, low=0.0, high=1.0, high_open=True)
        fisher = check_choice("fisher", fisher, ("empirical", "sampled"))
        sharing = check_choice("sharing", sharing, ("expand", "reduce"))
        normalization = check_choice("normalization", normalization, ("first_order", "unit_wise"))
        damping_split = check_choice("damping_split", damping_split, DAMPING_SPLITS)
        choice = BlockChoice(blocks, normalization, damping_split, kinds_of(network))
        mean_reduction = check_choice("reduction", reduction, ("mean", "sum")) == "mean"
        adapts = isinstance(damping, LevenbergMarquardt)
        accumulation_steps = check_accumulation(accumulation_steps, one_pass=fisher == "sampled" or adapts)
        world = find_world(distribution)
        if world is not None:
            check_mean_over_ranks(world, mean_reduction)
        given = None if params is None else check_parameters(params, network, learning_rate)
        trained = network.trainable_params() if given is None else given
        if not trained:
            raise ValueError(
                f"{type(self).__name__}: the network must have trainable Parameters, got "
                f"{type(network).__name__} without one"
            )
        self.prefix = name_prefix(self.method, network, given) if name is None else check_name("name", name)
        super().__init__(
            learning_rate,
            trained,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled,
            prefix=self.prefix,
        )
        # Not in the Cell's registry: a step holds the Parameter of the scale in force.
        self.__dict__["own_scale"] = scale
        self.use_loss_scale(None)
        self.centralizes = self.is_group and any(self.grad_centralization_flags)

        self.sharing = sharing
        self.mean_reduction = mean_reduction
        self.accumulation_steps = accumulation_steps
        self.factor_policy = factor_policy
        self.inverse_policy = inverse_policy
        self.damping = damping_schedule
        self.clips = kl_clip is not None
        self.trust_region = trust_region
        self.last_clip = Parameter(Tensor(1.0, ms.float32), name=f"{self.prefix}.clip", requires_grad=False)
        self.averages = averaging is not None
        self.average = PolyakAverage(self.parameters, 0.0 if averaging is None else averaging)
        self.fisher = fisher
        self.sampled = fisher == "sampled"
        self.adapts_damping = adapts
        if isinstance(damping, LevenbergMarquardt):
            prefix_names([p for p in damping.get_parameters() if p.name.startswith("damping.")], self.prefix)
        self.needs_train_cell = self.sampled or adapts
        # The training cell, which runs the additional passes, sets this to True.
        self.has_train_cell = not self.needs_train_cell
        self.one = Tensor(1.0, ms.float32)
        self.no_statistics = Tensor(0, ms.int32)
        self.ones = Tensor([1.0, 1.0], ms.float32)
        self.assign = ops.Assign()
        self.gather = ops.Gather()

        warn_of_slow_convolutions(type(self).__name__, network)
        self._patterns, self._choice = patterns, choice
        # Weak: an optimizer that is kept does not keep its network.
        self.__dict__["_network"] = weakref.ref(network)
        self.__dict__["_options_in_force"] = {
            "damping": plain(damping),
            "kl_clip": plain(kl_clip),
            "factor_decay": factor_decay,
            "fisher": fisher,
            "reduction": reduction,
            "momentum": momentum,
            "verify": verify,
            "on_nonfinite": on_nonfinite,
            "averaging": averaging,
        }
        self._create_reports(on_nonfinite)
        self._create_blocks(network, "nn.Momentum" if settings is None else "AdamW")
        self._create_adam_step(settings, trained)
        self._create_schedules()
        self._share(world, distribution, damping)
        self.counts_samples = self.has_lone_blocks or not mean_reduction
        self._create_counters(self.prefix)
        self._attach_taps()
        # A Parameter of the optimizer, so that its checkpoint contains the RNG state.
        self.draws: Any = rng_state(f"{self.prefix}.draws") if self.sampled else None
        # Equal weights need the same seed on all ranks, but ranks must draw different targets.
        self.rng_stream = 0 if world is None else world.rank
        self._create_commits(factor_decay, verify)
        self._create_update()
        set_in_place([*network.get_parameters(), *self.get_parameters()])
        self._watch_loaded_skips()

    @property
    def init_args(self) -> Any:
        """What MindSpore's boost makes copies of an optimizer from; this optimizer has no copies.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "boost_level: less_bn and grad_freeze, which levels O1 and O2 turn on, replace the optimizer by "
            f"copies, which {type(self).__name__} does not support: use boost_level='O0', or a "
            "boost_config_dict that sets both to False"
        )

    def _create_blocks(self, network: nn.Cell, rule: str) -> None:
        """Create the blocks: first of the layers found, then of Parameters outside layers."""
        self.statistics_options = StatisticsOptions(
            sharing=self.sharing,
            mean_reduction=self.mean_reduction,
            gradient_scale=float(self.accumulation_steps),
            separate=self.factor_policy.separate,
        )
        self._tapped, first_order = self._discover(network)
        lone, first_order = lone_parameters(first_order, self._has_lone_block)
        self._first_order = first_order
        self._layers = [*self._tapped, *lone]
        self._warn_of_idle_patterns(network)
        self._first_order = [*first_order, *outside_parameters(network, self.parameters)]
        made = create_blocks(
            self._layers,
            self._choice,
            owner=type(self).__name__,
            prefix=self.prefix,
            options=self.statistics_options,
            period=self.accumulation_steps,
            used_before_refresh=self.corrects_eigenvalues,
            sampled=self.sampled,
        )
        for block in made:
            block.reporter = self._reporter.number
        if not made:
            warn_user(
                f"{type(self).__name__}: no layer of the network is preconditioned; the optimizer acts as "
                f"{rule}. summary() gives the reasons"
            )
        else:
            self._warn_of_first_order(rule)
        self.blocks = nn.CellList(made, auto_prefix=False)
        self.has_lone_blocks = len(lone) > 0

    def _create_adam_step(self, settings: AdamW | None, trained: list[Any]) -> None:
        """Create AdamW's step of the parameters without a block, if the option asks for it."""
        with_block = {id(parameter_of(p)) for layer in self._layers for p in layer.parameters()}
        first_order = [parameter for parameter in self.parameters if id(parameter) not in with_block]
        if settings is not None and not first_order:
            warn_user("first_order: every parameter has a block, so that AdamW updates none")
        self.by_adam = self.create_adam_step(settings, first_order, trained)
        self._first_order_rule = MOMENTUM if settings is None else repr(settings)

    def _create_schedules(self) -> None:
        """Create the schedules of statistics and inverses from the refresh policies."""
        blocks = list(self.blocks)
        stopped = self.inverse_policy.stopped_layers(len(blocks), self.prefix)
        by_layer = self.corrects_eigenvalues and self.inverse_policy.by_layer
        options = ScheduleOptions(self.prefix, self.sampled, stopped, by_layer)
        self.statistics_schedule = self.factor_policy.for_statistics(blocks, options)
        self.inverse_schedule = self.inverse_policy.for_inverses(
            blocks, self.damping, self.statistics_schedule.gates, stopped, self.prefix
        )

    def _share(self, world: World | None, distribution: Distribution | None, damping: Any) -> None:
        """Distribute the curvature work over ranks, if there are several."""
        self.__dict__["_synchronization"] = None
        self.distributed = world is not None and len(self.blocks) > 0
        if world is not None and self.distributed:
            self.curvature = distribute_curvature(
                list(self.blocks),
                world,
                distribution,
                (self.factor_policy, self.inverse_policy),
                damping,
                by_layer=self.inverse_schedule.by_layer,
            )
            self.inverse_schedule.distribute(self.curvature)
        if world is not None:
            warn_of_different_weights(self.parameters, world.size)
        self.averages_new = self.distributed and self.curvature.averages_new

    def _create_commits(self, factor_decay: float, verify: str) -> None:
        """Create verification and commit: of staged statistics, and of Parameters outside layers."""
        owner, gates = self._owner, self.statistics_schedule.gates
        count = len(self._tapped)
        tapped, lone = list(self.blocks)[:count], list(self.blocks)[count:]
        self.verification = verification_of(
            self._tapped,
            tapped,
            lambda: self._taps,
            verify,
            owner=owner,
            accumulation_steps=self.accumulation_steps,
            shares_gate=len(set(gates)) == 1,
            counting=() if self.mean_reduction else self.counting_layers,
            reports=self._reports,
        )
        self.commit = CommitStatistics(tapped, factor_decay, self.verification, name=self.prefix)
        parameters = [layer.parameters() for layer in self._layers]
        self.views = GradientViews(self.parameters, parameters)
        self.positions = self.views.positions
        # One per call: MindSpore 2.10 passes zeros to a Cell that is called twice with a tuple.
        self.measure = MeasureGradients(
            parameters[:count],
            self.positions[:count],
            len(self.views.owners),
            GradientViews(self.parameters, parameters),
        )
        # Measurements of the pass over sampled targets, which supplies the statistics.
        self.sampled_measured = Parameter(
            zero_measurements(count), name=f"{self.prefix}.sampled_measured", requires_grad=False
        )
        self.records = ParameterTuple([block.record for block in tapped])
        if lone:
            # There is no tapped pass to verify against, so only NaN and Inf are refused.
            judge = Verification([block.layer_name for block in lone], "off", owner, reports=self._reports)
            self.commit_lone = CommitStatistics(lone, factor_decay, judge, name=f"{self.prefix}.{OTHER}")
        commits = [self.commit, self.commit_lone] if lone else [self.commit]
        # On several devices what a rank has committed may differ, but not which gates were open.
        own = [self.statistics_schedule.refreshes]
        self.inverse_schedule.watch(own if self.distributed else [commit.past for commit in commits])
        self.no_measurements = zero_measurements(len(lone))
        lone_positions = [own[0] for own in self.positions[count:]]
        lone_gates = [gate.parameter for gate in gates[count : count + len(lone)]]
        self.stage_lone = StageLone(lone, lone_gates, lone_positions)

    def _create_update(self) -> None:
        """Create the update: preconditioner, momentum step and quadratic model of the loss."""
        blocks = list(self.blocks)
        views = self.views
        preconditioned = {views.owners[position] for own in self.positions for position in own}
        self.preconditioned = tuple(position in preconditioned for position in range(len(self.parameters)))
        self.preconditioner: Any = Preconditioner(blocks, self.positions, len(views.owners))
        if self.distributed and self.curvature.exchange == "gradients":
            self.preconditioner = distribute_preconditioning(
                blocks, self.curvature, self.positions, views.shapes, self.inverse_schedule.refreshes
            )
        self.sources = self.preconditioner.sources
        if views.changes:
            self.sources = views.sources(len(self.preconditioner.order), self.sources)
        # Index of each product's block in `outcomes`, where each commit starts with its count of refused
        # batches.
        count = len(self._tapped)
        places = [1 + index + (index >= count) for index in range(len(blocks))]
        owners = {position: places[index] for index, own in enumerate(self.positions) for position in own}
        self.outcome_of_product = Tensor([owners[p] for p in self.preconditioner.order] or [0], ms.int32)
        self.check_step = CheckStep(
            self.parameters,
            [views.owners[position] for position in self.preconditioner.order],
            name=f"{self.prefix}.skipped",
            reporter=self._reporter,
        )
        scaled = [flag and self.clips for flag in self.preconditioned]
        self.create_momentum_step(scaled, self.sources, [not flag for flag in self.by_adam])
        parameters = [layer.parameters() for layer in self._layers]
        self.quadratic_model = QuadraticModel(blocks, GradientViews(self.parameters, parameters))
        self.weights_before = Snapshot(self.parameters if self.adapts_damping else ())
        unused = self.curvature.unused() if self.distributed else ()
        self.on_device = DeviceResidency([p for p in self.get_parameters() if id(p) not in unused])
