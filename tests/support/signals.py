"""Signals for commands that run in this process."""

from __future__ import annotations

import signal
import threading


def send(number: signal.Signals) -> None:
    """Sends a signal to this process.

    A command starts MindSpore's threads after it has blocked the signals; here they run already.
    """
    (waiting,) = (thread for thread in threading.enumerate() if thread.name == "signals")
    signal.pthread_kill(waiting.ident or 0, number)
