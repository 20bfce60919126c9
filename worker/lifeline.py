"""A process that ends with whoever started it: the other end of its standard input is the lifeline."""

import os
import signal
import threading


def stop_with_stdin() -> None:
    """Send this process SIGTERM when its standard input ends."""
    threading.Thread(target=_wait, daemon=True, name="lifeline").start()


def _wait() -> None:
    # Not through sys.stdin: its lock, held by this thread, would abort the interpreter's own end.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
