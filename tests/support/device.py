"""Another device target than the one that MindSpore runs on here."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import pytest


def use(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the package believe that MindSpore runs on that device."""
    context = ms.get_context

    def get_context(name: str) -> Any:
        return device if name == "device_target" else context(name)

    monkeypatch.setattr(ms, "get_context", get_context)
