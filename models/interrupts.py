"""Ctrl-C, SIGTERM and SIGHUP: as one, and not in the midst of what has to be whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

_Handler = Callable[[int, FrameType | None], object]


def stop_signals() -> list[signal.Signals]:
    """The signals that tell this process to stop: SIGHUP comes when its terminal is closed, unless `nohup` has had
    it ignored."""
    signals = [signal.SIGINT, signal.SIGTERM]
    return signals if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [*signals, signal.SIGHUP]


def when_told_to_stop(handler: _Handler) -> None:
    """Have a handler called for every signal that tells this process to stop."""
    for number in stop_signals():
        signal.signal(number, handler)


@contextmanager
def stop_signals_as_interrupt() -> Iterator[None]:
    """While the block runs, SIGTERM and SIGHUP raise KeyboardInterrupt: they would end this process without tidying
    up. In another thread than the main one, to which no signal comes, nothing changes."""

    def interrupt(number: int, _frame: object) -> None:
        if number == signal.SIGHUP:  # which the terminal sends, and its shell once more
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        raise KeyboardInterrupt

    with ExitStack() as stack:
        for number in set(stop_signals()) - {signal.SIGINT}:
            stack.enter_context(_handled(number, interrupt))
        yield


@contextmanager
def interrupts_held() -> Iterator[None]:
    """While the block runs, a first signal to stop waits. They come in the main thread only.

    A KeyboardInterrupt comes between any two steps, in a library's own tidying up too, which then is not done:
    SQLAlchemy keeps its locks, and complains of its state instead.
    """
    with _held(signal.SIGINT), _held(signal.SIGTERM), _held(signal.SIGHUP):
        yield


@contextmanager
def _held(number: signal.Signals) -> Iterator[None]:
    before = signal.getsignal(number)
    if not callable(before):
        yield
        return
    held: list[FrameType | None] = []

    def hold(_number: int, frame: FrameType | None) -> None:
        if held:
            before(number, frame)
        else:
            held.append(frame)

    try:
        with _handled(number, hold):
            yield
    finally:
        if held:
            before(number, held[0])


@contextmanager
def _handled(number: signal.Signals, handler: _Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    try:
        signal.signal(number, handler)
        yield
    finally:
        # None stands for a handler that was not set by Python, which cannot be set by it either.
        signal.signal(number, signal.SIG_DFL if before is None else before)
