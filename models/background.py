"""Work in a thread beside a block of code."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_JOIN_SECONDS = 1.0


@contextmanager
def repeating(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    """While the block runs, do something again and again in a thread, with pauses of so many seconds.

    An error is logged when it comes, not each time that it stays.
    """
    over = threading.Event()

    def repeat() -> None:
        logged: str | None = None
        while not over.is_set():
            try:
                action()
            except Exception as error:
                # At the end the block takes away what the action needs.
                if repr(error) != logged and not over.is_set():
                    logger.exception("internal error")
                logged = repr(error)
            else:
                logged = None
            over.wait(seconds)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_JOIN_SECONDS)
