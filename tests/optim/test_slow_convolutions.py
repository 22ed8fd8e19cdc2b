"""One warning per process where MindSpore's convolutions are slow: AVX-512, CPU, and no limit for oneDNN."""

from __future__ import annotations

import warnings

import pytest
from mindspore import nn

import ms_kfac
from ms_kfac.optim import slow_convolutions
from tests.support.device import use

CONVOLUTIONS = {
    "Conv1d": lambda: nn.Conv1d(2, 3, 3),
    "Conv2d": lambda: nn.SequentialCell(nn.SequentialCell(nn.Conv2d(2, 3, 3)), nn.Flatten()),
    "Conv2dTranspose": lambda: nn.Conv2dTranspose(2, 3, 3),
}


@pytest.fixture(autouse=True)
def _avx512_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_convolutions, "_warned", False)
    monkeypatch.setattr(slow_convolutions, "processor_flags", lambda: {"avx2", "avx512f"})
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


def warnings_of(net: nn.Cell) -> list[str]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ms_kfac.KFAC(net, 0.1)
    assert all(warning.filename == __file__ for warning in told)
    return [str(warning.message) for warning in told if "AVX-512" in str(warning.message)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_one_warning_names_the_variable(name: str) -> None:
    (text,) = warnings_of(CONVOLUTIONS[name]())
    assert text.startswith("KFAC: on this CPU with AVX-512, ")
    assert "ONEDNN_MAX_CPU_ISA=AVX2 python" in text
    assert not warnings_of(CONVOLUTIONS[name]())


@pytest.mark.parametrize("limit", ["", "AVX512_CORE", "ALL", "none"])
def test_values_that_allow_avx512_warn(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert warnings_of(CONVOLUTIONS["Conv2d"]())


@pytest.mark.parametrize("limit", ["SSE41", "AVX", "AVX2", "avx2", "AVX2_VNNI"])
def test_a_limit_is_silent(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert not warnings_of(CONVOLUTIONS["Conv2d"]())


def test_other_networks_cpus_and_devices_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not warnings_of(nn.Dense(2, 3))
    with monkeypatch.context() as patch:
        patch.setattr(slow_convolutions, "processor_flags", lambda: {"avx2"})
        assert not warnings_of(CONVOLUTIONS["Conv2d"]())
    use("GPU", monkeypatch)
    assert not warnings_of(CONVOLUTIONS["Conv2d"]())
