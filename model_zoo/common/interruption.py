"""SIGINT and SIGTERM: a training ends after its step, everything else ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from model_zoo.common.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Sent to the main thread alone, so that it wakes up from a system call.
_WAKE = signal.SIGUSR2
_SECONDS_BETWEEN_WAKES = 0.1
_SECONDS_TO_PASS_ON = 5
# Plus the number of the signal, as shells do.
SIGNAL_STATUS = 128


class StopSignals:
    """Turns signals into :class:`Interrupted`. A context manager for the main thread.

    While MindSpore runs a step, its own handler turns SIGINT into SIGTERM, and no handler of Python runs.
    Therefore the signals are blocked, and a thread waits for them. The second signal ends the process at
    once, unless another process passes on the first one: Ctrl-C in a terminal reaches a launcher, too.

    Attributes:
        received: the signal that has arrived; None so far.
    """

    def __init__(self) -> None:
        """Waits for `__enter__` before it looks at signals."""
        self.received: signal.Signals | None = None
        self._sender, self._time = 0, 0.0
        self._deferred = ""
        self._ended = False
        self._told = False
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)
        self._waker = threading.Thread(target=self._wake, name="wake", daemon=True)

    def __enter__(self) -> StopSignals:
        """Blocks the signals, also for the threads that start from now on, and waits for them."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        # Threads that have started before may still receive the signals.
        self._handlers = {number: signal.signal(number, self._handle) for number in (*SIGNALS, _WAKE)}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops waiting."""
        self._ended = self._told = True
        signal.pthread_kill(self._thread.ident or 0, signal.SIGTERM)
        self._thread.join()
        if self._waker.is_alive():
            self._waker.join()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _wait(self) -> None:
        while True:
            info = signal.sigwaitinfo(SIGNALS)
            if self._ended:
                return
            recent = time.monotonic() - self._time < _SECONDS_TO_PASS_ON
            if recent and info.si_signo == self.received and info.si_pid != self._sender:
                continue
            self._sender, self._time = info.si_pid, time.monotonic()
            self._note(signal.Signals(info.si_signo))
            if not self._deferred:
                self._waker.start()

    def _wake(self) -> None:
        # Repeated, because the main thread may just be about to enter the system call.
        while not self._told:
            signal.pthread_kill(self._main, _WAKE)
            time.sleep(_SECONDS_BETWEEN_WAKES)

    def _note(self, number: signal.Signals) -> None:
        if self.received is not None:
            os._exit(SIGNAL_STATUS + number)
        self.received = number
        if self._deferred:
            # Not print: the main thread may be printing.
            text = f"{number.name}: stopping {self._deferred}; a second signal stops at once\n"
            os.write(2, text.encode("ascii"))

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum != _WAKE:
            self._note(signal.Signals(signum))
        if self.received is not None and not self._deferred and not self._told:
            self._told = True
            raise Interrupted(self.received, f"stopped by {self.received.name}.")

    @contextlib.contextmanager
    def deferred(self, until: str = "after this step") -> Iterator[None]:
        """Inside the `with` block a signal only sets `received`.

        Args:
            until: when the block looks at it, for the message. Default: after this step.
        """
        self._deferred = until
        try:
            yield
        finally:
            # Whoever asked has seen that a signal was received.
            self._told = self.received is not None
            self._deferred = ""
