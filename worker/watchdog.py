"""Kills this process when something takes too long in it."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Watchdog:
    """The kernel's alarm: `with watchdog.watch(): …`, in any number of threads.

    SIGALRM is left to its default, which ends the process: a decoder that hangs in C code, with or without
    Python's lock, cannot prevent it. The supervisor then does what it does for any process that died.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[object, float] = {}  # the nearest first, for all have the same time
        self._lock = threading.Lock()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """What the block does must end in time."""
        ticket = object()
        with self._lock:
            self._deadlines[ticket] = time.monotonic() + self._seconds
            self._set_alarm()
        try:
            yield
        finally:
            with self._lock:
                del self._deadlines[ticket]
                self._set_alarm()

    def _set_alarm(self) -> None:
        nearest = next(iter(self._deadlines.values()), None)
        left = 0.0 if nearest is None else max(0.001, nearest - time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, left)
