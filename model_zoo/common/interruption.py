"""SIGINT and SIGTERM: a training ends after its step, everything else ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from model_zoo.common.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Turns signals into :class:`Interrupted`; a context manager that sets and restores the handlers.

    Attributes:
        received: the signal that arrived inside `deferred`; None so far.
    """

    def __init__(self) -> None:
        """Waits for `__enter__` before it changes handlers."""
        self.received: signal.Signals | None = None
        self._deferred = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        """Sets the handlers; only a main thread has any."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        """Restores the handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        number = signal.Signals(signum)
        if not self._deferred:
            raise Interrupted(signum, f"stopped by {number.name} before training.")
        self.received = number
        # Not print: the signal may have interrupted a print.
        os.write(2, f"{number.name}: stopping after this step; a second signal stops at once\n".encode())
        for again in _SIGNALS:
            signal.signal(again, signal.SIG_DFL)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside the `with` block a signal only sets `received`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
