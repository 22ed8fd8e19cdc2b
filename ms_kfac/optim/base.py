"""The step that every second-order optimizer here takes; a method adds its curvature block."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from ms_kfac.capture.attach import attach, attached_tap, detach
from ms_kfac.capture.discover import discover
from ms_kfac.capture.layer import Layer
from ms_kfac.capture.tap import SampleCounter, Tap
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.damping import Damping, DampingSchedule
from ms_kfac.optim.options import (
    check_choice,
    check_count,
    check_flag,
    check_interval,
    check_learning_rate,
    check_number,
    check_parameters,
    check_patterns,
)
from ms_kfac.optim.summary import summary_table
from ms_kfac.optim.trust_region import KLClip
from ms_kfac.refresh import Gate, MovingAverage, RefreshPolicy

_multiply = ops.MultitypeFuncGraph("multiply")
_multiply_where = ops.MultitypeFuncGraph("multiply_where")
_momentum_step = ops.MultitypeFuncGraph("momentum_step")
_nesterov_step = ops.MultitypeFuncGraph("nesterov_step")
_shrink = ops.MultitypeFuncGraph("shrink")


@_multiply.register("Tensor", "Tensor")
def _multiply_gradient(scale: Tensor, gradient: Tensor) -> Tensor:
    return gradient * ops.cast(scale, gradient.dtype)


@_multiply_where.register("Tensor", "Bool", "Tensor")
def _multiply_where_flagged(scale: Tensor, flag: bool, update: Tensor) -> Tensor:
    if flag:
        return update * ops.cast(scale, update.dtype)
    return update


@_momentum_step.register("Function", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _apply_momentum(
    apply: Any,
    momentum: Tensor,
    learning_rate: Tensor,
    update: Tensor,
    parameter: Parameter,
    moment: Parameter,
) -> bool:
    return ops.depend(True, apply(parameter, moment, learning_rate, update, momentum))


@_nesterov_step.register("Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _apply_nesterov(
    momentum: Tensor, learning_rate: Tensor, update: Tensor, parameter: Parameter, moment: Parameter
) -> bool:
    # Spelled out: ApplyMomentum's CPU kernel in MindSpore 2.10 takes use_nesterov and ignores it.
    velocity = moment * momentum + update
    step = learning_rate * (update + momentum * velocity)
    written = ops.assign(moment, velocity), ops.assign(parameter, parameter - step)
    return ops.depend(True, written)


@_shrink.register("Tensor", "Tensor", "Bool", "Tensor")
def _shrink_parameter(learning_rate: Tensor, decay: Tensor, flag: bool, parameter: Parameter) -> bool:
    if flag:
        return ops.depend(True, ops.assign(parameter, parameter * (1.0 - learning_rate * decay)))
    return True


class SecondOrderOptimizer(nn.Optimizer):
    """Base of the second-order optimizers.

    One step: scale the gradients, refresh the inverses when due, precondition, trust region, weight decay,
    momentum, learning rate; then set the gate for the next step. All state is in Parameters, so a checkpoint
    of the optimizer carries it.

    A subclass names itself in ``method`` and creates the block of a layer in :meth:`create_block`.
    """

    method = "abstract"

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
        sharing: str = "expand",
        reduction: str = "mean",
        loss_scale: float = 1.0,
        accumulation_steps: int = 1,
        skip: Iterable[str] = (),
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
        loss_scale = check_number("loss_scale", loss_scale, low=0.0, low_open=True)
        patterns = check_patterns("skip", skip)
        damping_schedule = DampingSchedule(damping)

        trained = network.trainable_params() if params is None else check_parameters(params)
        # The base class would multiply weight decay by the loss scale, to divide both by it later; here
        # gradients are unscaled first.
        super().__init__(learning_rate, trained, weight_decay, loss_scale=1.0)
        self.loss_scale = loss_scale
        self.need_scale = loss_scale != 1.0
        self.reciprocal_scale = Tensor(1.0 / loss_scale, ms.float32)

        self.sharing = check_choice("sharing", sharing, ("expand", "reduce"))
        self.mean_reduction = check_choice("reduction", reduction, ("mean", "sum")) == "mean"
        self.accumulation_steps = check_count("accumulation_steps", accumulation_steps)
        self.gradient_scale = self.accumulation_steps / loss_scale
        self.decoupled_weight_decay = decoupled
        self.factor_policy = factor_policy
        self.inverse_policy = inverse_policy
        self.damping = damping_schedule
        self.moving_average = MovingAverage(factor_decay, name=self.method)
        self.clips = kl_clip is not None
        # Never called when switched off; a Cell all the same, because a compiled step parses it either way.
        self.trust_region = KLClip(1.0 if kl_clip is None else kl_clip)

        self._layers, self._first_order = discover(network, self.parameters, patterns)
        self.blocks = nn.CellList([self.create_block(layer) for layer in self._layers], auto_prefix=False)
        self._gate = Gate(f"{self.method}.gate")
        self.gate = self._gate.parameter
        self.closed = Tensor(0, ms.int32)
        self._counter = None if self.mean_reduction else SampleCounter(f"{self.method}.samples")
        self._attach_taps()

        self.momentum = Parameter(Tensor(momentum, ms.float32), name="momentum", requires_grad=False)
        self.moments = self.parameters.clone(prefix="moments", init="zeros")
        self.nesterov = nesterov
        self.apply_momentum = ops.ApplyMomentum()
        self.assign = ops.Assign()
        self.reduce_sum = ops.ReduceSum()
        self.square = ops.Square()
        positions = {id(parameter): position for position, parameter in enumerate(self.parameters)}
        self.positions = tuple(tuple(positions[id(p)] for p in layer.parameters()) for layer in self._layers)
        preconditioned = {position for layer_positions in self.positions for position in layer_positions}
        self.preconditioned = tuple(position in preconditioned for position in range(len(self.parameters)))

    def create_block(self, layer: Layer) -> CurvatureBlock:
        """The method's approximation of a layer's Fisher block.

        Args:
            layer: the layer.

        Raises:
            TypeError: if the subclass does not define it.
        """
        raise TypeError(f"{type(self).__name__} does not define create_block(layer)")

    def _attach_taps(self) -> None:
        replaced = []
        self._taps = []
        for layer, block in zip(self._layers, self.blocks):
            counter = self._counter if layer is self._layers[0] else None
            self._taps.append(Tap(block.statistics, block.state, self._gate, counter))
            if attach(layer, self._taps[-1]):
                replaced.append(layer.name)
        if replaced:
            warnings.warn(
                f"{type(self).__name__} took over layers {', '.join(replaced)}: an earlier optimizer on this "
                "network gets no more statistics of them",
                stacklevel=4,
            )
        if self._counter is not None and not self._layers:
            raise ValueError(
                "reduction='sum' counts the batch's samples at a preconditioned layer, and there is none"
            )

    def __call__(self, *inputs: Any) -> Any:
        outputs = super().__call__(*inputs)
        self._gate.expire()
        return outputs

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> bool:
        self.close_gate(gradients)
        gradients = self.mean_gradients(self.scale_grad(self.gradients_centralization(gradients)))
        if len(self.blocks) > 0:
            self.refresh_inverses()
        learning_rate = self.get_lr()
        updates = gradients
        if len(self.blocks) > 0:
            updates = self.preconditioned_gradients(gradients)
            if self.clips:
                updates = self.clip(learning_rate, gradients, updates)
        self.update_parameters(learning_rate, updates)
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        if len(self.blocks) > 0:
            self.prepare_statistics()
        return True

    def close_gate(self, gradients: tuple[Tensor, ...]) -> bool:
        """Close the gate once the backward pass is over.

        The write also orders a compiled step: the taps write statistics while gradients are computed, and
        without a write that waits for the gradients a graph is free to read the statistics before.

        Args:
            gradients: what the write waits for.

        Returns:
            What the Assign returns.
        """
        return self.assign(self.gate, ops.depend(self.closed, gradients))

    def mean_gradients(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients of the mean loss, whatever the reduction."""
        if self._counter is None:
            return gradients
        samples = ops.maximum(self._counter.samples, 1.0)
        gradients = self.map_(ops.partial(_multiply, self.accumulation_steps / samples), gradients)
        return ops.depend(gradients, self.assign(self._counter.samples, samples * 0.0))

    def refresh_inverses(self) -> bool:
        """Recompute every block's inverse when the policy says so."""
        if self.inverse_policy(self.global_step):
            damping = self.damping(self.global_step)
            for block in self.blocks:
                block.refresh(damping)
        return True

    def preconditioned_gradients(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """U of every preconditioned parameter in its place, the others' gradients as they are."""
        updates = list(gradients)
        for index in range(len(self.blocks)):
            block = self.blocks[index]
            positions = self.positions[index]
            join = block.weight_matrix
            matrix = block.precondition(join(gradients[positions[0]], gradients[positions[-1]]))
            updates[positions[0]] = join.weight_part(matrix)
            if len(positions) > 1:
                updates[positions[1]] = join.bias_part(matrix)
        return tuple(updates)

    def clip(
        self, learning_rate: Any, gradients: tuple[Tensor, ...], updates: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Scale the preconditioned gradients into the trust region."""
        products: tuple[Tensor, ...] = ()
        for positions in self.positions:
            for position in positions:
                inner = self.reduce_sum(gradients[position] * updates[position])
                if self.is_group_lr:
                    inner = inner * self.square(learning_rate[position])
                products = (*products, inner)
        rate = 1.0 if self.is_group_lr else learning_rate
        nu = self.trust_region(products, rate)
        return self.map_(ops.partial(_multiply_where, nu), self.preconditioned, updates)

    def update_parameters(self, learning_rate: Any, updates: tuple[Tensor, ...]) -> bool:
        """Weight decay, momentum and learning rate: nn.Momentum's rule on the updates."""
        if self.decoupled_weight_decay:
            self.shrink_parameters(learning_rate)
        else:
            updates = self.decay_weight(updates)
        apply, momentum = self.apply_momentum, self.momentum
        if self.nesterov and self.is_group_lr:
            step = ops.partial(_nesterov_step, momentum)
            self.hyper_map_reverse(step, learning_rate, updates, self.parameters, self.moments)
        elif self.nesterov:
            step = ops.partial(_nesterov_step, momentum, learning_rate)
            self.hyper_map_reverse(step, updates, self.parameters, self.moments)
        elif self.is_group_lr:
            step = ops.partial(_momentum_step, apply, momentum)
            self.hyper_map_reverse(step, learning_rate, updates, self.parameters, self.moments)
        else:
            step = ops.partial(_momentum_step, apply, momentum, learning_rate)
            self.hyper_map_reverse(step, updates, self.parameters, self.moments)
        return True

    def shrink_parameters(self, learning_rate: Any) -> bool:
        """Decoupled weight decay, w <- (1 - lr weight_decay) w."""
        if self.exec_weight_decay:
            decay = self.get_weight_decay()
            if self.is_group and self.is_group_lr:
                self.map_(_shrink, learning_rate, decay, self.decay_flags, self.parameters)
            elif self.is_group:
                self.map_(ops.partial(_shrink, learning_rate), decay, self.decay_flags, self.parameters)
            else:
                self.map_(ops.partial(_shrink, learning_rate, decay), self.decay_flags, self.parameters)
        return True

    def prepare_statistics(self) -> bool:
        """Set the gate for the next step; when it opens, let the past fade first."""
        due = self.factor_policy(self.global_step)
        self.assign(self.gate, ops.cast(due, ms.int32).reshape(()))
        if due:
            factor = self.moving_average()
            for block in self.blocks:
                block.decay(factor)
        return True

    def detach(self) -> None:
        """Take this optimizer's taps out of the network, which then trains as if it had never been tapped.

        A layer that a later optimizer has taken over is left to it.
        """
        for layer, tap in zip(self._layers, self._taps):
            if attached_tap(layer.cell) is tap:
                detach(layer.cell)

    def restore(self, checkpoint: Mapping[str, Parameter]) -> None:
        """Load a state into this optimizer and its network after steps have been taken.

        ``mindspore.load_param_into_net`` serves before the first step. Afterwards it would leave compiled
        steps, which hold control flow on these Parameters, on the old buffers; this writes into them.

        Args:
            checkpoint: what ``mindspore.load_checkpoint`` returned; names that the optimizer does not have
                are passed over, and Parameters that it does not name stay as they are.
        """
        for parameter in self.get_parameters():
            if parameter.name in checkpoint:
                ops.assign(parameter, ms.Tensor(checkpoint[parameter.name].asnumpy(), parameter.dtype))
        self._gate.expire()

    @ms.jit
    def _compiled_precondition(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.preconditioned_gradients(gradients)

    def precondition(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Preconditioned gradients with the present inverses, before trust region, weight decay and momentum.

        Args:
            gradients: one a parameter, in the order of ``parameters``, unscaled.

        Returns:
            U in the parameters' shapes; the gradients of first-order parameters come back as they are.

        Raises:
            ValueError: if the number of gradients is not the number of parameters.
        """
        if len(gradients) != len(self.parameters):
            raise ValueError(
                f"gradients must hold one Tensor a parameter ({len(self.parameters)}), got {len(gradients)}"
            )
        if not self._layers:
            return tuple(gradients)
        return tuple(self._compiled_precondition(tuple(gradients)))

    def factors(self, layer_name: str) -> dict[str, NDArray[np.float32]]:
        """The present statistics of a layer.

        Args:
            layer_name: the cell's name in the network before tapping ("conv1", "layer1.0.conv2").

        Returns:
            NumPy float32 arrays by name ("A", "G" for K-FAC), undamped and moving-averaged, in the scale of
            the papers: per sample, whatever reduction and loss scale; the bias as last row and column; a
            leading axis of groups for grouped convolutions. All zeros before a backward pass has reached the
            layer.

        Raises:
            KeyError: if no preconditioned layer has that name.
        """
        for layer, block in zip(self._layers, self.blocks):
            if layer.name == layer_name:
                factors: dict[str, NDArray[np.float32]] = block.factors()
                return factors
        known = ", ".join(layer.name for layer in self._layers)
        raise KeyError(f"no preconditioned layer {layer_name!r}; there are: {known}")

    def summary(self) -> str:
        """A text table of the preconditioned layers, and why the other cells stay first-order.

        Returns:
            A row a layer: name, kind, block, dimensions, KiB, form of the operators; then the other cells.
        """
        return summary_table(repr(self), self._layers, list(self.blocks), self._first_order)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self._layers)} layers preconditioned, sharing {self.sharing!r}, "
            f"factors {self.factor_policy!r}, inverses {self.inverse_policy!r})"
        )
