"""Kills this process when nothing moves in it any more."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Watchdog:
    """The kernel's alarm: `with Watchdog(seconds) as dog: … dog.progress() …`. For the main thread of a process.

    SIGALRM is left to its default, which ends the process: a decoder that hangs in C code, with or without
    Python's lock, cannot prevent it. The supervisor then does what it does for any process that died.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._suspended = 0
        self._lock = threading.Lock()

    def __enter__(self) -> "Watchdog":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self.progress()
        return self

    def __exit__(self, *_error: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def progress(self) -> None:
        """Something was done: the time begins anew."""
        with self._lock:
            signal.setitimer(signal.ITIMER_REAL, 0 if self._suspended else self._seconds)

    @contextmanager
    def suspend(self) -> Iterator[None]:
        """While the block runs, nothing has to be done: weights may take long to be fetched."""
        with self._lock:
            self._suspended += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            yield
        finally:
            with self._lock:
                self._suspended -= 1
            self.progress()
