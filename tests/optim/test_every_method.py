"""What holds for every method: all ways to train agree, a run can be resumed, evaluation changes nothing."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import cross_entropy, functional_step, train_by
from tests.support.methods import METHODS
from tests.support.networks import SMALL_NET_LAYERS, SmallNet, batches, weights_of

LEARNING_RATE = 0.05
DAMPING = 0.05


def build(name: str) -> tuple[SmallNet, ms.nn.Optimizer]:
    method, options = METHODS[name]
    net = SmallNet()
    return net, method(net, LEARNING_RATE, damping=DAMPING, **options)


def assert_same_run(found: SmallNet, expected: SmallNet, start: dict[str, np.ndarray]) -> None:
    """Compares weights to how far they moved: float32 ε through four steps of products and solves."""
    for name, weight in weights_of(expected).items():
        moved = np.abs(weight - start[name]).max()
        assert moved > 1e-4, f"{name} did not move, so the comparison is empty"
        np.testing.assert_allclose(weights_of(found)[name], weight, rtol=0, atol=1e-3 * moved, err_msg=name)


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_in_another_way_is_the_same_run(mode: int, name: str, tmp_path: Path) -> None:
    """Four steps of the functional loop; two of `nn.TrainOneStepCell`, a checkpoint, two in a fresh net."""
    data = batches(4)
    start = weights_of(SmallNet())
    whole, whole_optimizer = build(name)
    train_by("functional", whole, whole_optimizer, data)

    net, optimizer = build(name)
    train_by("cell", net, optimizer, data[:2])
    # The weights are Parameters of the optimizer, BatchNorm's moments of the network alone.
    ms.save_checkpoint(net, str(tmp_path / "net.ckpt"))
    ms.save_checkpoint(optimizer, str(tmp_path / "optimizer.ckpt"))
    resumed, resumed_optimizer = build(name)
    for cell, file in ((resumed, "net.ckpt"), (resumed_optimizer, "optimizer.ckpt")):
        missing, _ = ms.load_param_into_net(cell, ms.load_checkpoint(str(tmp_path / file)))
        assert not missing
    train_by("cell", resumed, resumed_optimizer, data[2:])

    assert_same_run(resumed, whole, start)
    assert resumed_optimizer.refreshes() == whole_optimizer.refreshes()
    for layer in SMALL_NET_LAYERS:
        expected = whole_optimizer.factors(layer)
        for key, value in resumed_optimizer.factors(layer).items():
            if key.startswith("Q"):
                continue  # An eigenvector's sign is free; the weights above depend on no sign.
            scale = np.abs(expected[key]).max()
            np.testing.assert_allclose(
                value, expected[key], rtol=0, atol=2e-3 * scale, err_msg=f"{layer} {key}"
            )


@pytest.mark.parametrize("name", METHODS)
def test_evaluation_does_not_change_the_statistics(mode: int, name: str) -> None:
    net, optimizer = build(name)
    train_by("functional", net, optimizer, batches(1))
    before = {parameter.name: parameter.asnumpy().copy() for parameter in optimizer.get_parameters()}
    net.set_train(False)
    for x, _ in batches(2, seed=7):
        net(tensor(x))
    for parameter in optimizer.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), before[parameter.name], err_msg=parameter.name)


POLICIES = {
    "factor_interval": ms_kfac.StaleStatistics(1e6),
    "inverse_interval": ms_kfac.TraceChange(0.0, 0.0),
}
STOPPING = {
    "factor_interval": ms_kfac.IntervalSchedule({0: 1, 2: 2}),
    "inverse_interval": ms_kfac.TraceChange(1e3, 1e2),
}


@pytest.mark.parametrize("policies", [POLICIES, STOPPING], ids=["by layer", "stopping"])
@pytest.mark.parametrize("name", METHODS)
def test_any_method_takes_any_policy(name: str, policies: dict[str, ms_kfac.RefreshPolicy]) -> None:
    """Similar statistics are taken at steps 0, 1, 2 and 4; layers that stop are refreshed at step 0 alone."""
    ms.set_context(mode=ms.GRAPH_MODE)
    method, options = METHODS[name]
    net = SmallNet()
    optimizer = method(net, LEARNING_RATE, **{"damping": DAMPING, **options, **policies})
    start = weights_of(net)
    train_by("cell", net, optimizer, batches(5))
    statistics, inverses, _ = optimizer.refreshes().values()
    layers = len(optimizer.blocks)
    if policies is STOPPING:
        assert inverses == layers
        assert statistics == 2 * layers
    else:
        # EKFAC measures at step 3 as well, in the bases that were recomputed at step 2.
        assert statistics == (5 if name == "EKFAC" else 4) * layers
        assert inverses >= 2 * layers
    for weight in net.trainable_params():
        assert np.isfinite(weight.asnumpy()).all()
        assert np.abs(weight.asnumpy() - start[weight.name]).max() > 0
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.mark.parametrize("name", ["KFAC", "EKFAC"])
def test_inverses_follow_new_statistics(mode: int, name: str) -> None:
    """EKFAC's second moments, taken one step after a basis, are no new statistics of the factors."""
    method, _ = METHODS[name]
    net = SmallNet()
    optimizer = method(
        net,
        LEARNING_RATE,
        factor_interval=ms_kfac.FixedInterval(3),
        inverse_interval=ms_kfac.OnNewStatistics(),
    )
    train_by("functional", net, optimizer, batches(6))
    assert optimizer.refreshes()["inverses"] == 2


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("damping", -1.0),
        ("kl_clip", 0.0),
        ("factor_decay", 1.0),
        ("fisher", "true"),
        ("sharing", "both"),
        ("averaging", 1.0),
        ("normalization", "none"),
        ("reduction", "none"),
    ],
)
def test_common_options_are_refused_by_name(name: str, option: str, value: object) -> None:
    method, options = METHODS[name]
    with pytest.raises(ValueError, match=option) as error:
        method(SmallNet(), LEARNING_RATE, **{**options, option: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("name", METHODS)
def test_unknown_options_are_refused(name: str) -> None:
    method, options = METHODS[name]
    with pytest.raises(TypeError, match="dampign"):
        method(SmallNet(), LEARNING_RATE, dampign=0.1, **options)


def test_layers_that_stopped_take_no_second_moments() -> None:
    """EKFAC where one layer has stopped and another's basis is recomputed at every look."""
    net = SmallNet()
    net.set_train(True)
    optimizer = ms_kfac.EKFAC(
        net,
        LEARNING_RATE,
        damping=DAMPING,
        factor_interval=1,
        inverse_interval=ms_kfac.TraceChange(0.01, 1e-9),
    )
    step = functional_step(net, optimizer, cross_entropy())
    (x, y), *later = batches(4)
    step(tensor(x), tensor(y))
    stopped = optimizer.inverse_schedule.stopped
    ms.ops.assign(stopped, ms.Tensor([1.0, 0.0, 0.0], ms.float32))
    step(tensor(later[0][0]), tensor(later[0][1]))
    before = optimizer.factors("conv1")
    for x, y in later[1:]:
        step(tensor(x), tensor(y))
    assert stopped.asnumpy().tolist() == [1.0, 0.0, 0.0]
    for key, value in optimizer.factors("conv1").items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)
    pending = [int(gate.pending.asnumpy()) for gate in optimizer.statistics_schedule.gates]
    assert pending[0] == 0
    assert min(pending[1:]) >= 3


def test_lambda_that_nothing_uses_is_not_adapted() -> None:
    with pytest.raises(ValueError, match="damping_mode='automatic'"):
        ms_kfac.TKFAC(
            SmallNet(), LEARNING_RATE, damping_mode="automatic", damping=ms_kfac.LevenbergMarquardt(0.1)
        )


@pytest.mark.parametrize("option", [{"fisher": "sampled"}, {"damping": ms_kfac.LevenbergMarquardt(0.1)}])
def test_accumulation_is_refused_where_the_cell_takes_one_pass(option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="accumulation_steps"):
        ms_kfac.KFAC(SmallNet(), LEARNING_RATE, accumulation_steps=2, **option)
