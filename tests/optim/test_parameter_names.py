"""Names of Parameters: unique in a graph of several optimizers, and the same in every process."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from tests.support.bank import tensor
from tests.support.methods import fixed_intervals


class Half(nn.Cell):
    """Two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Dense(3, 4)
        self.last = nn.Dense(4, 3)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.last(ops.tanh(self.first(x)))


class Whole(nn.Cell):
    """A generator and a discriminator, or an actor and a critic, of the same class."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = Half()
        self.discriminator = Half()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.discriminator(self.generator(x))


def own_names(net: nn.Cell, optimizer: nn.Optimizer) -> list[str]:
    weights = {id(parameter) for parameter in net.get_parameters()}
    return [parameter.name for parameter in optimizer.get_parameters() if id(parameter) not in weights]


def two_by_networks(net: Whole) -> list[nn.Optimizer]:
    return [ms_kfac.KFAC(part, 0.05, **fixed_intervals(1, 2)) for part in (net.generator, net.discriminator)]


def two_by_parameters(net: Whole) -> list[nn.Optimizer]:
    parts = (net.generator, net.discriminator)
    options = fixed_intervals(1, 2)
    return [ms_kfac.KFAC(net, 0.05, params=part.trainable_params(), **options) for part in parts]


Gradient = Callable[[ms.Tensor], tuple[ms.Tensor, ...]]


def gradients_of_both(
    net: Whole, of_generator: nn.Optimizer, of_discriminator: nn.Optimizer
) -> list[Gradient]:
    def fooled(x: ms.Tensor) -> ms.Tensor:
        return (net(x) ** 2).sum(-1).mean()

    def told_apart(x: ms.Tensor) -> ms.Tensor:
        return ((net.discriminator(x) - 1.0) ** 2).sum(-1).mean()

    return [
        ms.grad(loss, None, optimizer.parameters)
        for loss, optimizer in ((fooled, of_generator), (told_apart, of_discriminator))
    ]


@pytest.mark.parametrize("make", [two_by_networks, two_by_parameters])
def test_two_optimizers_in_one_graph(mode: int, make: Callable[[Whole], list[nn.Optimizer]]) -> None:
    """Their Parameters meet in one compiled function, with the weights' and the taps'.

    Weights and statistics are those of a plain loop, in which one takes its step while the other is paused.
    """
    net = Whole()
    start = {p.name: p.asnumpy().copy() for p in net.trainable_params()}
    of_generator, of_discriminator = make(net)
    names = own_names(net, of_generator) + own_names(net, of_discriminator)
    assert len(names) == len(set(names))
    for name in own_names(net, of_generator):
        assert name.startswith(("kfac.generator.", "moments.generator.")), name
    gradient_of_generator, gradient_of_discriminator = gradients_of_both(net, of_generator, of_discriminator)

    @ms.jit
    def step(x: ms.Tensor) -> bool:
        of_discriminator(gradient_of_discriminator(x))
        return of_generator(gradient_of_generator(x))

    plain = Whole()
    for parameter, own in zip(plain.trainable_params(), net.trainable_params()):
        parameter.set_data(ms.Tensor(start[own.name]))
    plain_optimizers = make(plain)
    gradients = gradients_of_both(plain, *plain_optimizers)
    for seed in range(2):
        x = tensor(np.random.default_rng(seed).standard_normal((5, 3)))
        step(x)
        plain_optimizers[1](gradients[1](x))
        with plain_optimizers[1].paused():
            plain_optimizers[0](gradients[0](x))
    for parameter, other in zip(net.trainable_params(), plain.trainable_params()):
        weight, old = parameter.asnumpy(), start[parameter.name]
        assert np.abs(weight - old).max() > 1e-5, parameter.name
        # Rounding in float32 behind damped inverses: the graph of both fuses operators in another way.
        np.testing.assert_allclose(weight, other.asnumpy(), rtol=0, atol=1e-5, err_msg=parameter.name)
    for optimizer, other in zip((of_generator, of_discriminator), plain_optimizers):
        assert {checked.state for checked in optimizer.verification.checked} == {"verified"}
        for layer in optimizer.layers:
            for key, factor in other.factors(layer).items():
                assert factor.any()
                np.testing.assert_allclose(optimizer.factors(layer)[key], factor, rtol=0, atol=1e-5)


def test_an_optimizer_of_a_whole_network_has_the_method_s_name() -> None:
    assert ms_kfac.KFAC(Whole(), 0.1).prefix == "kfac"
    assert ms_kfac.TKFAC(Whole(), 0.1, damping_mode="automatic").expansion.name == "tkfac.expansion"
    assert ms_kfac.KFAC(Whole(), 0.1, name="mine").prefix == "mine"
    net = Whole()
    groups = [{"params": net.generator.trainable_params()}, {"params": net.discriminator.trainable_params()}]
    assert ms_kfac.KFAC(net, 0.1, params=groups).prefix == "kfac"


def test_names_do_not_depend_on_other_optimizers_of_the_process() -> None:
    first, second = Whole(), Whole()
    names = own_names(first, ms_kfac.KFAC(first, 0.1))
    assert own_names(second, ms_kfac.KFAC(second, 0.1)) == names


class Tower(nn.Cell):
    """A head on an encoder that several towers share."""

    def __init__(self, encoder: nn.Cell) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Dense(3, 2)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.head(self.encoder(x))


class Agent(nn.Cell):
    """Two towers: the encoder's Parameters have the path of the second one."""

    def __init__(self) -> None:
        super().__init__()
        encoder = Half()
        self.actor, self.critic = Tower(encoder), Tower(encoder)


@pytest.mark.filterwarnings("ignore:KFAC took over layers")
@pytest.mark.parametrize("frozen", [True, False])
def test_a_shared_submodule_does_not_give_two_optimizers_one_name(frozen: bool) -> None:
    agent = Agent()
    for parameter in agent.critic.encoder.get_parameters():
        parameter.requires_grad = not frozen
    prefixes = [ms_kfac.KFAC(tower, 0.1).prefix for tower in (agent.actor, agent.critic)]
    assert prefixes == (["kfac.actor", "kfac.critic"] if frozen else ["kfac", "kfac.critic"])


class Halving(nn.learning_rate_schedule.LearningRateSchedule):
    """A schedule with a Parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = ms.Parameter(tensor(np.array(0.1)), name="rate", requires_grad=False)

    def construct(self, step: ms.Tensor) -> ms.Tensor:
        return self.rate / (step + 1)


def test_a_user_s_schedule_keeps_its_names() -> None:
    schedule = Halving()
    for _ in range(2):
        ms_kfac.KFAC(Half(), schedule)
    assert schedule.rate.name.endswith("rate") and "kfac" not in schedule.rate.name


def test_invalid_groups_are_refused_by_mindspore() -> None:
    with pytest.raises(TypeError, match="param"):
        ms_kfac.KFAC(Half(), 0.1, params=[{"params": ["first.weight"]}])


class Named(nn.Cell):
    """A dense layer, and scales of the given names."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.scales = ms.ParameterTuple([ms.Parameter(ms.Tensor([1.0]), name=name) for name in names])
        self.dense = nn.Dense(3, 3)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        for scale in self.scales:
            x = x * scale
        return self.dense(x)


@pytest.mark.filterwarnings("ignore:KFAC. .* of the weights have no curvature")
def test_weights_may_have_the_names_of_an_optimizer_s_attributes() -> None:
    optimizer = ms_kfac.KFAC(Half(), 0.1)
    cells = [name for name, _ in optimizer.name_cells().items()]
    attributes = sorted({*dir(optimizer), *cells} - set(dir(Named([]))))
    assert {"blocks", "damping", "parameters", "summary"} <= set(attributes)
    net = Named(attributes)
    optimizer = ms_kfac.KFAC(net, 0.1)
    assert [parameter.name for parameter in net.trainable_params()][: len(attributes)] == attributes
    assert {id(parameter) for parameter in net.trainable_params()} <= {
        id(parameter) for parameter in optimizer.get_parameters()
    }
    net = Named(["damping", "blocks", "learning_rate", "moments"])
    train = nn.TrainOneStepCell(
        nn.WithLossCell(net, nn.MSELoss()), ms_kfac.KFAC(net, 0.1, params=net.trainable_params())
    )
    train(tensor(np.ones((4, 3))), tensor(np.zeros((4, 3))))
    assert all(parameter.asnumpy()[0] != 1.0 for parameter in net.scales)


class ActorCritic(nn.Cell):
    """Two heads on one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Dense(3, 4, activation="tanh")
        self.actor, self.critic = nn.Dense(4, 2), nn.Dense(4, 1)

    def construct(self, x: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        hidden = self.trunk(x)
        return self.actor(hidden), self.critic(hidden)


PARTS = {
    ("trunk", "actor"): "kfac.without_critic",
    ("critic", "trunk"): "kfac.without_actor",
    ("critic",): "kfac.critic",
    ("trunk", "actor", "critic"): "kfac",
}


@pytest.mark.filterwarnings("ignore:KFAC took over layers")
def test_parts_that_overlap_have_names_of_their_own() -> None:
    net = ActorCritic()
    for parts, name in PARTS.items():
        params = [p for part in parts for p in getattr(net, part).trainable_params()]
        assert ms_kfac.KFAC(net, 0.1, params=params).prefix == name
    deeper = nn.SequentialCell(Half(), ActorCritic(), Half(), Half())
    params = [*deeper[0].trainable_params(), *deeper[2].trainable_params()]
    assert ms_kfac.KFAC(deeper, 0.1, params=params).prefix == "kfac.0_2"


def test_an_actor_and_a_critic_on_one_trunk(mode: int) -> None:
    """The trunk's statistics are those of the optimizer that was made last; the other one is told so."""
    net = ActorCritic()
    trunk, actor, critic = (part.trainable_params() for part in (net.trunk, net.actor, net.critic))
    of_actor = ms_kfac.KFAC(net, 0.05, params=[*trunk, *actor])
    with pytest.warns(UserWarning, match="took over layers trunk"):
        of_critic = ms_kfac.KFAC(net, 0.05, params=[*trunk, *critic])

    def acts(x: ms.Tensor) -> ms.Tensor:
        return (net(x)[0] ** 2).sum(-1).mean()

    def judges(x: ms.Tensor) -> ms.Tensor:
        return ((net(x)[1] - 1.0) ** 2).mean()

    x = tensor(np.random.default_rng(0).standard_normal((5, 3)))
    with pytest.warns(UserWarning, match=r"KFAC \(kfac.without_critic\): no backward pass .* trunk"):
        of_actor(ms.grad(acts, None, of_actor.parameters)(x))
    of_critic(ms.grad(judges, None, of_critic.parameters)(x))
    assert not of_actor.factors("trunk")["A"].any()
    assert of_actor.factors("actor")["A"].any()
    rows = np.c_[x.asnumpy(), np.ones(5)].astype(np.float64)
    np.testing.assert_allclose(of_critic.factors("trunk")["A"], rows.T @ rows / 5, rtol=1e-5)


def test_an_optimizer_made_anew_on_the_same_network(mode: int) -> None:
    """It takes over the taps. A function that was compiled before has the old ones, and this is told."""
    net = Half()

    def loss(x: ms.Tensor) -> ms.Tensor:
        return (net(x) ** 2).sum(-1).mean()

    def again(x: ms.Tensor) -> ms.Tensor:
        return loss(x)

    x = tensor(np.random.default_rng(0).standard_normal((5, 3)))
    old = ms_kfac.KFAC(net, 0.05)
    before = ms.grad(loss, None, old.parameters)
    old(before(x))
    kept = old.factors("first")
    with pytest.warns(UserWarning, match="took over layers first, last"):
        new = ms_kfac.KFAC(net, 0.05)
    if mode == ms.GRAPH_MODE:
        with pytest.warns(UserWarning, match="compiled before this optimizer was made"):
            new(before(x))
        assert not new.factors("first")["A"].any()
    new(ms.grad(again, None, new.parameters)(x))
    for name, factor in kept.items():
        np.testing.assert_array_equal(old.factors("first")[name], factor)
    assert new.factors("first")["A"].any()
    assert {checked.state for checked in new.verification.checked} == {"verified"}
