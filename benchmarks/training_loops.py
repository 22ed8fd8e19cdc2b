"""The cases of ``benchmarks.verification``: wrong and legitimate networks and training loops."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import amp, nn, ops

import ms_kfac

SAMPLES, FEATURES, HIDDEN, CLASSES = 16, 6, 5, 3
OPTIONS: dict[str, Any] = {
    "damping": 0.1,
    "factor_interval": ms_kfac.FixedInterval(1),
    "inverse_interval": ms_kfac.FixedInterval(2),
}


class Net(nn.Cell):
    """Three dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Dense(FEATURES, HIDDEN, activation="tanh")
        self.second = nn.Dense(HIDDEN, HIDDEN, activation="tanh")
        self.head = nn.Dense(HIDDEN, CLASSES)

    def construct(self, x: ms.Tensor) -> ms.Tensor:  # noqa: D102
        return self.head(self.second(self.first(x)))


class TiedNet(Net):
    """The second layer's weight is used a second time, outside its layer."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:  # noqa: D102
        hidden = self.second(self.first(x))
        return self.head(hidden + ops.matmul(hidden, self.second.weight))


class Scaled(nn.Dense):
    """A dense layer whose weight is normalized before use, as weight normalization does."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:  # noqa: D102
        weight = self.weight / ops.norm(self.weight)
        return ops.matmul(x, weight.T) + self.bias


class TransformedNet(Net):
    """The second layer transforms its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.second = Scaled(HIDDEN, HIDDEN)


class BypassedNet(Net):
    """The second layer's parameters are used without calling the layer."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:  # noqa: D102
        hidden = ops.matmul(self.first(x), self.second.weight.T) + self.second.bias
        return self.head(ops.tanh(hidden))


class RepeatedNet(Net):
    """The second layer is called twice in one pass."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:  # noqa: D102
        return self.head(self.second(self.second(self.first(x))))


Batch = tuple[ms.Tensor, ms.Tensor]
Step = Callable[[int], Any]


def batch(number: int) -> Batch:
    """A batch of random inputs and labels."""
    rng = np.random.default_rng(number)
    x = rng.standard_normal((SAMPLES, FEATURES)).astype(np.float32)
    return ms.Tensor(x), ms.Tensor(rng.integers(0, CLASSES, SAMPLES).astype(np.int32))


def cross_entropy(reduction: str = "mean") -> nn.Cell:
    """The loss."""
    return nn.CrossEntropyLoss(reduction=reduction)


class Loss(nn.Cell):
    """A network's loss, optionally scaled, divided or with an L2 term, as in custom loops.

    Args:
        divisor: divisor of the loss.
        scale: a Parameter that multiplies the loss; None for none.
        l2: weight of the sum of squared parameters.
        maker: a Cell that computes the network's inputs; None for none.
    """

    def __init__(
        self,
        net: nn.Cell,
        *,
        divisor: float = 1.0,
        scale: ms.Parameter | None = None,
        l2: float = 0.0,
        maker: nn.Cell | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.net, self.maker = net, maker
        self.criterion = cross_entropy()
        self.divisor, self.l2 = divisor, l2
        self.scale = scale
        self.penalized = ms.ParameterTuple(net.trainable_params())

    def construct(self, x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:  # noqa: D102
        if self.maker is not None:
            x = self.maker(x)
        loss = self.criterion(self.net(x), y) / self.divisor
        if self.l2 > 0.0:
            for parameter in self.penalized:
                loss = loss + self.l2 * ops.square(parameter).sum()
        return loss if self.scale is None else loss * self.scale


def gradients_of(net: nn.Cell, **loss: Any) -> Callable[..., Any]:
    """(loss, gradients) of a network, from its :class:`Loss`."""
    return ms.value_and_grad(Loss(net, **loss), None, net.trainable_params())


def plain(net: nn.Cell, optimizer: Any, change: Any = None, **loss: Any) -> Step:
    """A custom loop: gradients, an optional change to them, and the step."""
    gradients = gradients_of(net, **loss)

    def step(number: int) -> None:
        _, grads = gradients(*batch(number))
        optimizer(grads if change is None else change(grads))

    return step


def network(kind: Callable[[], nn.Cell]) -> Callable[[], tuple[Any, Step]]:
    """A plain loop on a network of the given class."""

    def case() -> tuple[Any, Step]:
        net = kind()
        optimizer = ms_kfac.KFAC(net, 0.01, **OPTIONS)
        return optimizer, plain(net, optimizer)

    return case


def generator(*, step_first: bool, paused: bool = False) -> tuple[Any, Step]:
    """GAN: a generator pass through the discriminator, after its step or between gradients and step."""
    net, maker = Net(), nn.Dense(4, FEATURES)
    optimizer = ms_kfac.KFAC(net, 0.01, **OPTIONS)
    first_order = nn.Momentum(maker.trainable_params(), 0.01, 0.9)
    own = gradients_of(net)
    through = ms.value_and_grad(Loss(net, maker=maker), None, maker.trainable_params())

    def step(number: int) -> None:
        x, y = batch(number)
        _, grads = own(x, y)
        if step_first:
            optimizer(grads)
        with optimizer.paused() if paused else nullcontext():
            _, others = through(x[:, :4], y)
        if not step_first:
            optimizer(grads)
        first_order(others)

    return optimizer, step


def sharpness() -> tuple[Any, Step]:
    """SAM: the step uses the gradient of the second pass, at perturbed weights; the last pass wins."""
    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.01, **OPTIONS)
    gradients = gradients_of(net)
    parameters = net.trainable_params()

    def step(number: int) -> None:
        x, y = batch(number)
        _, grads = gradients(x, y)
        moves = [0.05 * grad for grad in grads]
        for parameter, move in zip(parameters, moves):
            ops.assign_add(parameter, move)
        _, grads = gradients(x, y)
        for parameter, move in zip(parameters, moves):
            ops.assign_sub(parameter, move)
        optimizer(grads)

    return optimizer, step


def first_pass() -> tuple[Any, Step]:
    """An adversarial pass runs after the step's gradient was computed."""
    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.01, **OPTIONS)
    gradients = gradients_of(net)
    of_inputs = ms.grad(Loss(net))

    def step(number: int) -> None:
        x, y = batch(number)
        _, grads = gradients(x, y)
        of_inputs(x + 1.0, y)
        optimizer(grads)

    return optimizer, step


def undeclared_scale() -> tuple[Any, Step]:
    """The loss is scaled and the gradients are unscaled by hand, unknown to the optimizer."""
    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.01, **OPTIONS)
    scaler = amp.DynamicLossScaler(2.0**10, 2, 100)
    return optimizer, plain(net, optimizer, scaler.unscale, scale=scaler.scale_value)


def wrong_reduction() -> tuple[Any, Step]:
    """The loss is a sum over the batch, but the optimizer expects a mean; found by the training cell."""
    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.001, **OPTIONS)
    cell = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, cross_entropy("sum")), optimizer)
    cell.set_train()
    return optimizer, lambda number: cell(*batch(number))


def not_a_number(*, dropped: bool) -> tuple[Any, Step]:
    """One batch contains NaN; the loop skips that step, or replaces NaN by zero."""
    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.01, **OPTIONS)
    gradients = gradients_of(net)

    def step(number: int) -> None:
        x, y = batch(number)
        if number == 1:
            x = x * float("nan")
        _, grads = gradients(x, y)
        if dropped:
            if all(bool(ops.isfinite(grad).all()) for grad in grads):
                optimizer(grads)
        else:
            optimizer(tuple(ops.where(ops.isfinite(grad), grad, 0.0) for grad in grads))

    return optimizer, step


def recomputed() -> tuple[Any, Step]:
    """The layers are recomputed in the backward pass, in a cell that contains the tapped layers."""
    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.01, **OPTIONS)
    net.second.recompute()
    return optimizer, plain(net, optimizer)


def clipped() -> tuple[Any, Step]:
    """Gradients are clipped by their global norm."""
    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.01, **OPTIONS)
    return optimizer, plain(net, optimizer, lambda grads: ops.clip_by_global_norm(grads, 0.1))


def l2() -> tuple[Any, Step]:
    """The loss has an L2 term."""
    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.01, **OPTIONS)
    return optimizer, plain(net, optimizer, l2=0.01)


def decayed() -> tuple[Any, Step]:
    """Weight decay and Nesterov momentum."""
    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.01, weight_decay=0.1, nesterov=True, **OPTIONS)
    return optimizer, plain(net, optimizer)


def accumulated(parts: int, *, announced: bool, mean: bool) -> tuple[Any, Step]:
    """Micro-batches, with divided losses or averaged gradients."""
    net = Net()
    accumulation = {"accumulation_steps": parts} if announced else {}
    optimizer = ms_kfac.KFAC(net, 0.01, **OPTIONS, **accumulation)
    gradients = gradients_of(net, divisor=1.0 if mean else float(parts))

    def step(number: int) -> None:
        total = None
        for part in range(parts):
            _, grads = gradients(*batch(number * parts + part))
            total = grads if total is None else tuple(a + b for a, b in zip(total, grads))
        optimizer(tuple(grad / parts for grad in total) if mean else total)

    return optimizer, step


def scaled() -> tuple[Any, Step]:
    """The loss is scaled by MindSpore's scaler, which is passed to the optimizer."""
    net = Net()
    scaler = amp.DynamicLossScaler(2.0**10, 2, 2)
    optimizer = ms_kfac.KFAC(net, 0.01, loss_scale=scaler, **OPTIONS)
    gradients = gradients_of(net, scale=scaler.scale_value)

    def step(number: int) -> None:
        _, grads = gradients(*batch(number))
        optimizer(scaler.unscale(grads))
        scaler.adjust(ms.Tensor(True))

    return optimizer, step


def grouped(**options: Any) -> tuple[Any, Step]:
    """Parameter groups with different learning rates, or centralized gradients."""
    net = Net()
    parameters = net.trainable_params()
    groups = [{"params": parameters[:2], "lr": 0.02, **options}, {"params": parameters[2:]}]
    optimizer = ms_kfac.KFAC(net, 0.01, params=groups, **OPTIONS)
    return optimizer, plain(net, optimizer)


def sampled() -> tuple[Any, Step]:
    """Statistics of sampled targets, checked against the gradient of that pass."""
    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.01, fisher="sampled", **OPTIONS)
    cell = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, cross_entropy()), optimizer)
    cell.set_train()
    return optimizer, lambda number: cell(*batch(number))


WRONG: dict[str, Callable[[], tuple[Any, Step]]] = {
    "functional tying": network(TiedNet),
    "transformed weight": network(TransformedNet),
    "bypassed layer": network(BypassedNet),
    "generator's pass before the step": lambda: generator(step_first=False),
    "adversarial pass before the step": first_pass,
    "undeclared loss scale": undeclared_scale,
    "wrong reduction": wrong_reduction,
    "NaN batch, gradients zeroed": lambda: not_a_number(dropped=False),
}
RIGHT: dict[str, Callable[[], tuple[Any, Step]]] = {
    "generator's pass after the step": lambda: generator(step_first=True),
    "generator's pass before the step, paused": lambda: generator(step_first=False, paused=True),
    "SAM": sharpness,
    "NaN batch, step dropped by the loop": lambda: not_a_number(dropped=True),
    "recomputed layer": recomputed,
    "clipped by global norm": clipped,
    "L2 in the loss": l2,
    "weight decay, Nesterov": decayed,
    "accumulation announced": lambda: accumulated(3, announced=True, mean=False),
    "accumulation not announced, sums": lambda: accumulated(3, announced=False, mean=False),
    "accumulation not announced, means": lambda: accumulated(4, announced=False, mean=True),
    "amp.DynamicLossScaler as loss_scale": scaled,
    "parameter groups": grouped,
    "gradient centralization": lambda: grouped(grad_centralization=True),
    "layer called twice": network(RepeatedNet),
    "sampled Fisher": sampled,
}
