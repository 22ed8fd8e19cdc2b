"""One warning when over 5 % of the weights have no curvature, with the share and the reasons."""

from __future__ import annotations

import warnings
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, nn

import ms_kfac
from ms_kfac.curvature import DiagonalBlock
from tests.support.bank import tensor


class Mixed(nn.Cell):
    """110 weights of a dense layer, and two kinds of weights without a block."""

    def __init__(self, positions: int = 30) -> None:
        super().__init__()
        self.dense = nn.Dense(10, 10)
        self.gru = nn.GRU(1, 1)
        self.positions = Parameter(tensor(np.ones(positions)), name="positions")
        self.norm = nn.LayerNorm((100,))


def warnings_of(net: nn.Cell, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ms_kfac.KFAC(net, 0.1, **options)
    assert all(warning.filename == __file__ for warning in told)
    return [str(warning.message) for warning in told]


@pytest.mark.parametrize(("options", "rule"), [({}, "nn.Momentum"), ({"first_order": "adam"}, "AdamW")])
def test_it_names_the_share_and_the_reasons(options: dict[str, Any], rule: str) -> None:
    # 12 weights of the GRU, 30 positions, 110 of the dense layer and 200 of the norm.
    (text,) = warnings_of(Mixed(), **options)
    assert text.startswith(f"KFAC: 11.9 % of the weights have no curvature and are updated as by {rule} (")
    assert "8.5 % in Mixed: no curvature block for Mixed" in text
    assert "3.4 % in gru: GRU hides the gradients of its gates" in text
    assert "norm" not in text


@pytest.mark.parametrize(
    "options",
    [
        {"skip": ["gru", "Mixed"]},
        {"skip": ["gru", "^positions$"]},
        {"blocks": {"other": DiagonalBlock}},
        {"blocks": {"other": "first_order"}},
        {"blocks": {"gru": DiagonalBlock, "^positions$": DiagonalBlock}},
        {"blocks": {"gru": "first_order", "^positions$": DiagonalBlock}},
    ],
)
def test_what_an_option_decides_is_silent(options: dict[str, Any]) -> None:
    assert not warnings_of(Mixed(), **options)


def test_a_small_share_is_silent() -> None:
    assert not warnings_of(Mixed(positions=1))


def test_a_network_without_blocks_has_the_warning_of_its_own() -> None:
    (text,) = warnings_of(nn.SequentialCell(nn.GRU(3, 4)))
    assert "no layer of the network is preconditioned" in text


def test_weights_of_other_types_say_so() -> None:
    net = nn.SequentialCell(nn.Dense(4, 4), nn.Dense(4, 4, dtype=ms.float64))
    (text,) = warnings_of(net)
    assert "1.weight is Float64, not Float32, Float16 or BFloat16" in text
