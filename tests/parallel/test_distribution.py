"""The `distribution` option, and what is refused with several ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mindspore as ms
import pytest

import ms_kfac
from ms_kfac.optim import base
from ms_kfac.parallel import Distribution
from ms_kfac.parallel.distribution import World, find_world
from tests.support.networks import SmallNet


@pytest.mark.parametrize("option", ["exchange", "collective"])
def test_unknown_values_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be one of .*, got 'none'"):
        Distribution(**{option: "none"})


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match=r"distribution must be None or a .*, got 'inverses'"):
        ms_kfac.KFAC(SmallNet(), 0.1, distribution="inverses")


@pytest.fixture
def parallel_mode() -> Iterator[Any]:
    yield lambda mode: ms.set_auto_parallel_context(parallel_mode=mode)
    ms.reset_auto_parallel_context()


def test_one_device_distributes_nothing() -> None:
    assert find_world(None) is None
    optimizer = ms_kfac.KFAC(SmallNet(), 0.1)
    assert "distributed" not in repr(optimizer)
    assert optimizer.traffic() is None
    optimizer.synchronize()


@pytest.mark.parametrize("mode", ["semi_auto_parallel", "auto_parallel", "hybrid_parallel"])
def test_modes_that_split_layers_are_refused(parallel_mode: Any, mode: str) -> None:
    parallel_mode(mode)
    with pytest.raises(ValueError, match=f"parallel_mode must be .*, got '{mode}'"):
        ms_kfac.KFAC(SmallNet(), 0.1)


def test_communication_must_be_initialized(parallel_mode: Any) -> None:
    with pytest.raises(RuntimeError, match="init"):
        find_world(Distribution())
    parallel_mode("data_parallel")
    with pytest.raises(RuntimeError, match="init"):
        ms_kfac.KFAC(SmallNet(), 0.1)


def worlds(monkeypatch: pytest.MonkeyPatch, *, averages: bool = True) -> None:
    """Make optimizers act as the first of two ranks."""
    monkeypatch.setattr(base, "find_world", lambda distribution: World(0, 2, averages))
    monkeypatch.setattr(base, "warn_of_different_weights", lambda parameters, size: None)


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        (ms_kfac.SKFAC, {}, "rows"),
        (ms_kfac.TKFAC, {"ema": "paper"}, "ema='paper'"),
    ],
)
def test_statistics_that_do_not_add_up_are_refused(
    monkeypatch: pytest.MonkeyPatch, method: Any, options: dict[str, Any], reason: str
) -> None:
    worlds(monkeypatch)
    with pytest.raises(ValueError, match=f"distribution None.*{reason}.*got 2 ranks"):
        method(SmallNet(), 0.1, **options)


def test_summed_gradients_of_mean_losses_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds(monkeypatch, averages=False)
    with pytest.raises(ValueError, match="gradients_mean must be True"):
        ms_kfac.KFAC(SmallNet(), 0.1)


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        (ms_kfac.KFAC, {}, "no ReduceScatter on a CPU"),
        (ms_kfac.EKFAC, {}, "EKFAC"),
        (ms_kfac.SMKFAC, {}, "SMKFAC"),
        (ms_kfac.TKFAC, {"damping_mode": "automatic"}, "automatic damping"),
        (ms_kfac.SPNGD, {}, "StaleStatistics"),
        (ms_kfac.KFAC, {"inverse_interval": ms_kfac.TraceChange()}, "TraceChange"),
        (ms_kfac.KFAC, {"damping": ms_kfac.LevenbergMarquardt(0.1)}, "LevenbergMarquardt"),
    ],
)
def test_an_impossible_reduce_scatter_is_refused(
    monkeypatch: pytest.MonkeyPatch, method: Any, options: dict[str, Any], reason: str
) -> None:
    worlds(monkeypatch)
    if method is not ms_kfac.KFAC or options:
        monkeypatch.setattr("ms_kfac.parallel.collectives.has_reduce_scatter", lambda: True)
    with pytest.raises(ValueError, match=f"{reason}.*got 'reduce_scatter'"):
        method(SmallNet(), 0.1, distribution=Distribution(collective="reduce_scatter"), **options)


@pytest.mark.parametrize("exchange", ["inverses", "gradients"])
def test_with_exchanged_gradients_a_device_holds_its_own_inverses(
    monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    worlds(monkeypatch)
    for name in ("all_reduce", "all_gather"):
        monkeypatch.setattr(f"ms_kfac.parallel.collectives.{name}", ms.nn.Identity)
    optimizer = ms_kfac.KFAC(SmallNet(), 0.1, distribution=Distribution(exchange=exchange))
    held = {parameter.name for parameter in optimizer.on_device.kept}
    absent = {parameter.name for parameter in optimizer.get_parameters()} - held
    # The largest factor, A of the head, is the first rank's; the other has both convolutions.
    foreign = {f"kfac.conv{i}.{factor}_inverse" for i in (1, 2) for factor in "AG"}
    assert absent == (foreign if exchange == "gradients" else set())
