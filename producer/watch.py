"""Follows a job to its end, with a progress bar on a terminal and plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Protocol

from tqdm import tqdm

from ..models.patience import patiently
from ..models.states import JobState
from .status import JobStatus, speed_text

_POLL_SECONDS = 0.3
_LINE_SECONDS = 10.0
_HINT_SECONDS = 5.0
_COUNT_SECONDS = 2.0


class Display(Protocol):
    """Shows a job's progress to a person."""

    def update(self, status: JobStatus) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


def follow(
    read: Callable[[], JobStatus],
    display: Display,
    store_seconds: float,
    check: Callable[[], None] = lambda: None,
    hint: bool = False,
    poll_seconds: float = _POLL_SECONDS,
) -> JobStatus:
    """Wait for a job's end.

    Args:
        read: reads its status.
        display: is told how far it is.
        store_seconds: for how long a store or a service that cannot be used is asked again.
        check: called between two looks; may raise to end the wait.
        poll_seconds: the pause between two looks.
        hint: tell a person when no worker is running, and when the job is paused.

    Raises:
        JobNotFoundError: there is no such job.
        StoreUnreachableError, ServiceUnreachableError: the other side was away for too long.
    """
    hints = _Hints(display) if hint else None
    try:
        while True:
            status = patiently(store_seconds, read)
            display.update(status)
            if status.state.ended:
                return status
            check()
            if hints is not None:
                hints.update(status)
            time.sleep(poll_seconds)
    finally:
        display.close()


class _Hints:
    """Says why nothing moves, once each time that it becomes so."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._said: str | None = None
        self._calm_at = time.monotonic()

    def update(self, status: JobStatus) -> None:
        reason = status.standstill
        now = time.monotonic()
        if reason is None:
            self._said, self._calm_at = None, now
        elif reason != self._said and now - self._calm_at > _HINT_SECONDS:
            self._display.say(reason)
            self._said = reason


def make_display() -> Display:
    """A bar when standard error is a terminal, else lines."""
    return _Bar() if sys.stderr.isatty() else _Lines()


def make_counter(what: str, quiet: bool = False) -> Callable[[int], None]:
    """Says on a terminal, now and then, how many files have been dealt with; nothing when that is quick."""
    last = time.monotonic()

    def count(files: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _COUNT_SECONDS:
            last = time.monotonic()
            print(f"{what} {files} files so far", file=sys.stderr, flush=True)  # noqa: T201

    return count if sys.stderr.isatty() and not quiet else lambda _files: None


class _Bar:
    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None

    def update(self, status: JobStatus) -> None:
        if self._bar is None:
            self._bar = tqdm(total=status.scans.total, unit="img", file=sys.stderr, dynamic_ncols=True)
        self._bar.total = status.scans.total  # which grows while the job is being submitted
        self._bar.set_description_str(_STAGES[status.state], refresh=False)
        self._bar.update(status.finished_scans - self._bar.n)
        self._bar.refresh()

    def say(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Lines:
    """A line at the start and at each stage, and in between one every ten seconds."""

    def __init__(self) -> None:
        self._last: tuple[JobState, int] | None = None
        self._last_at = 0.0

    def update(self, status: JobStatus) -> None:
        seen = (status.state, status.finished_scans)
        now = time.monotonic()
        new_stage = self._last is None or self._last[0] != seen[0]
        if new_stage or (self._last != seen and now - self._last_at >= _LINE_SECONDS):
            self._last, self._last_at = seen, now
            self.say(f"{_STAGES[seen[0]]}: {seen[1]} of {status.total} images{speed_text(status, ', ')}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        pass


_STAGES = {
    JobState.EMBEDDING: "Embedding",
    JobState.PAUSED: "Paused",
    JobState.SCORING: "Scoring",
    JobState.DONE: "Done",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
}
