"""Work in a thread beside a block of code."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_JOIN_SECONDS = 1.0


@contextmanager
def repeating(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    """While the block runs, do something again and again in a thread, with pauses of so many seconds."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            try:
                action()
            except Exception:
                if not over.is_set():  # at the end the block takes away what the action needs
                    logger.exception("internal error")
            over.wait(seconds)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_JOIN_SECONDS)
