"""MindSpore's boost: parts that replace the optimizer are refused in a sentence."""

from __future__ import annotations

import copy
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.boost import AutoBoost
from mindspore.boost import boost as levels

import ms_kfac
from tests.support.loops import as_dataset
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron, weights_of


@pytest.fixture
def boost(monkeypatch: pytest.MonkeyPatch) -> None:
    """MindSpore keeps the first level of a process for good, and writes configurations into its table."""
    monkeypatch.setattr(AutoBoost, "_instance", None)
    monkeypatch.setattr(levels, "_boost_config_level", copy.deepcopy(levels._boost_config_level))


def manual(**parts: bool) -> dict[str, Any]:
    off = {"less_bn": False, "grad_freeze": False, "adasum": False}
    return {"boost": {"mode": "manual", **off, **parts}, "common": {"device_number": 1}}


@pytest.mark.parametrize("model", [ms.Model, ms_kfac.Model], ids=["mindspore", "ms_kfac"])
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_levels_that_copy_the_optimizer(boost: None, level: str, model: Any) -> None:
    net = Perceptron((4, 3))
    with pytest.raises(TypeError, match=r"boost_level: less_bn and grad_freeze.*use boost_level='O0'"):
        model(net, nn.CrossEntropyLoss(), ms_kfac.KFAC(net, 0.1), metrics={"loss"}, boost_level=level)


def test_dim_reduce_would_train_with_another_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(model: Any, arguments: dict[str, Any]) -> None:
        model._optimizer = nn.SGD(model._network.trainable_params(), 1.0)

    monkeypatch.setattr(ms.Model, "_build_boost_network", replace)
    net = Perceptron((4, 3))
    with pytest.raises(ValueError, match="boost_config_dict: dim_reduce replaces the optimizer"):
        ms_kfac.Model(net, nn.CrossEntropyLoss(), ms_kfac.KFAC(net, 0.1))


def test_the_rest_of_boost_trains(boost: None, rng: np.random.Generator) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    data = [(rng.standard_normal((6, 4)), rng.integers(0, 3, 6)) for _ in range(3)]
    found = []
    for options in ({}, {"boost_level": "O1", "boost_config_dict": manual()}):
        net = Perceptron((4, 3))
        optimizer = ms_kfac.KFAC(net, 0.1, **fixed_intervals(1, 2))
        model = ms.Model(net, nn.CrossEntropyLoss(), optimizer, metrics={"loss"}, **options)
        numbers = [(x.astype(np.float32), y.astype(np.int32)) for x, y in data]
        model.train(1, as_dataset(numbers), dataset_sink_mode=False)
        found.append(weights_of(net))
        assert optimizer.refreshes() == {"statistics": 3, "inverses": 2, "refused": 0}
    for name, weight in found[0].items():
        np.testing.assert_allclose(found[1][name], weight, rtol=0, atol=1e-6, err_msg=name)
