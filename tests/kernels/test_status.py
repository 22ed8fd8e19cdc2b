"""What the package says of its operators and of the libraries behind them."""

from __future__ import annotations

import importlib

import pytest

import ms_kfac
from ms_kfac.kernels.library import library
from ms_kfac.kernels.registry import REGISTRY
from tests.support.device import use

# Operators that are no modules of ms_kfac.ops.
ELSEWHERE = {"commit_statistics": "statistics.commit", "measure_gradients": "statistics.measure"}


def rows_of(status: str) -> tuple[list[str], list[str]]:
    """The lines of the devices and those of the operators."""
    lines = status.splitlines()
    devices = [line for line in lines if line.split(" ")[0].rstrip(":") in ("CPU", "GPU", "Ascend")]
    # What kernels have complained of in tests before this one.
    said = [line for line in lines if line.startswith(("warning: ", "last error: "))]
    assert lines[: len(devices)] == devices
    return devices, lines[len(devices) : len(lines) - len(said)]


def folder_of(operator: str) -> str:
    """The folder of an operator in ``ms_kfac/ops``."""
    last = operator.rpartition("_")[2]
    return last if last in ("statistics", "refresh") else "step"


def test_status_names_every_operator_and_its_form() -> None:
    devices, rows = rows_of(ms_kfac.kernels.status())
    assert [device.split(": ")[0] for device in devices] == ["CPU (in use)", "GPU"]
    for line, name in zip(devices, ("CPU", "GPU")):
        of_device = library(name)
        assert f": library {of_device.path}" in line if of_device.path else of_device.reason in line
    assert [row.split()[0] for row in rows] == list(REGISTRY)
    for row in rows:
        name, form, *reason = row.split()
        importlib.import_module(f"ms_kfac.{ELSEWHERE.get(name, f'ops.{folder_of(name)}.{name}')}")
        native = library("CPU").path != ""
        assert form == ("native" if native else "fallback")
        assert reason or native


def test_without_a_library_for_gpus_all_is_composed_there(monkeypatch: pytest.MonkeyPatch) -> None:
    use("GPU", monkeypatch)
    monkeypatch.setattr(library("GPU"), "reason", "not built (how to)")
    monkeypatch.setattr(library("GPU"), "path", "")
    devices, rows = rows_of(ms_kfac.kernels.status())
    assert devices[0] == "GPU (in use): no native library: not built (how to)"
    assert devices[1].startswith("CPU: ")
    for row in rows:
        assert row.endswith("  fallback  not built (how to)")


def test_other_devices_have_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    use("Ascend", monkeypatch)
    devices, rows = rows_of(ms_kfac.kernels.status())
    assert devices[0] == "Ascend (in use): no native library: none is written for it"
    assert [device.split(":")[0] for device in devices[1:]] == ["CPU", "GPU"]
    for row in rows:
        assert row.endswith("  fallback  kernels are for CPU and GPU")
