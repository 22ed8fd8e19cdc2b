"""What the package says of its operators."""

from __future__ import annotations

import importlib

import ms_kfac


def test_status_names_every_operator_and_its_form() -> None:
    rows = ms_kfac.kernels.status().splitlines()
    assert rows
    for row in rows:
        name, form, *reason = row.split()
        importlib.import_module(f"ms_kfac.ops.{name}")
        assert form == "composed"
        assert reason
