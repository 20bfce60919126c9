"""Ctrl-C and SIGTERM: as one, and not in the midst of what has to be whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """While the block runs, SIGTERM raises KeyboardInterrupt: it would end this process without tidying up."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """While the block runs, a first Ctrl-C and a first SIGTERM wait. They come in the main thread only.

    A KeyboardInterrupt comes between any two steps, in a library's own tidying up too, which then is not done:
    SQLAlchemy keeps its locks, and complains of its state instead.
    """
    with _held(signal.SIGINT), _held(signal.SIGTERM):
        yield


@contextmanager
def _held(number: signal.Signals) -> Iterator[None]:
    before = signal.getsignal(number)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[FrameType | None] = []

    def hold(_number: int, frame: FrameType | None) -> None:
        if held:
            before(number, frame)
        else:
            held.append(frame)

    try:
        signal.signal(number, hold)
        yield
    finally:
        signal.signal(number, before)
        if held:
            before(number, held[0])
