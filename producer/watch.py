"""Follows a job to its end, with a progress bar on a terminal and plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..models.patience import patiently
from ..models.stages import EMBEDDING, WAITING
from ..models.states import JobState
from .status import JobStatus, speed_text
from .streams import is_terminal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_POLL_SECONDS = 0.3
_LINE_SECONDS = 10.0
_HINT_SECONDS = 5.0
_COUNT_SECONDS = 2.0
_BAR_COLUMNS = 16
_LEAST_COLUMNS = 72
"""Of a terminal that has room for a bar beside the numbers."""
_STARTING = "starting worker"


class Display(Protocol):
    """Shows a person how far a job is, or what is being done."""

    def update(self, status: JobStatus) -> None: ...
    def stage(self, stage: str) -> None: ...
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
    hints = Hints(display.say) if hint else None
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


class Hints:
    """Says why nothing moves, once each time that it becomes so."""

    def __init__(self, say: Callable[[str], object], at_once: bool = False) -> None:
        """Args:
        say: is told the reason.
        at_once: say it of the first status too; later ones may pass by themselves within seconds.
        """
        self._say = say
        self._said: str | None = None
        self._calm_at = -math.inf if at_once else time.monotonic()

    def update(self, status: JobStatus) -> None:
        reason = status.standstill
        now = time.monotonic()
        if reason is None:
            self._said, self._calm_at = None, now
        elif reason != self._said and now - self._calm_at > _HINT_SECONDS:
            self._say(reason)
            self._said = reason


def make_display(own_worker: bool = False) -> Display:
    """A bar when standard error is a terminal, else lines.

    Args:
        own_worker: the command has started the worker that it waits for.
    """
    return _Bar(own_worker) if is_terminal(sys.stderr) else _Lines(own_worker)


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
    """One line that is written again and again. Speed and time left are the status's own."""

    def __init__(self, own_worker: bool) -> None:
        self._own_worker = own_worker
        self._status: JobStatus | None = None
        self._stage = ""
        self._eta: float | None = None
        self._eta_at = 0.0
        self._live: Live | None = None

    def update(self, status: JobStatus) -> None:
        if self._status is None or self._status.eta_seconds != status.eta_seconds:
            self._eta, self._eta_at = status.eta_seconds, time.monotonic()
        self._status = status
        self.stage(_stage(status, self._own_worker))

    def stage(self, stage: str) -> None:
        self._stage = _sentence(stage)
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, emoji=False, markup=False, highlight=False)
            self._live = Live(get_renderable=lambda: self._line(console), console=console, refresh_per_second=4)
            self._live.start()
        self._live.refresh()

    def say(self, text: str) -> None:
        if self._live is None:
            print(text, file=sys.stderr, flush=True)  # noqa: T201
        else:
            self._live.console.print(text, soft_wrap=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _line(self, console: "Console") -> "RenderableType":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        status = self._status
        counts = "" if status is None else f"{status.finished_scans} of {status.total} images"
        if status is not None and status.stage == EMBEDDING:
            left = None if not self._eta else max(self._eta - (time.monotonic() - self._eta_at), 1.0)
            counts += speed_text(status.images_per_second, left, ", ")
        stage = Text(self._stage, "bold", no_wrap=True, overflow="ellipsis")
        if status is None or console.width < _LEAST_COLUMNS:
            return Text.assemble(stage, "  " if counts else "", counts, no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(max(status.scans.total, 1), status.finished_scans, _BAR_COLUMNS)
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(stage, bar, Text(counts, no_wrap=True, overflow="ellipsis"))
        return line


class _Lines:
    """A line for each stage, and in between one every ten seconds."""

    def __init__(self, own_worker: bool) -> None:
        self._own_worker = own_worker
        self._last: tuple[str, int] | None = None
        self._last_at = 0.0

    def update(self, status: JobStatus) -> None:
        seen = (_stage(status, self._own_worker), status.finished_scans)
        now = time.monotonic()
        new_stage = self._last is None or self._last[0] != seen[0]
        if new_stage or (self._last != seen and now - self._last_at >= _LINE_SECONDS):
            self._last, self._last_at = seen, now
            speed = speed_text(status.images_per_second, status.eta_seconds, ", ")
            self.say(f"{_sentence(seen[0])}: {seen[1]} of {status.total} images{speed}")

    def stage(self, stage: str) -> None:
        self.say(_sentence(stage))

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        pass


def _stage(status: JobStatus, own_worker: bool) -> str:
    """What is being done; for a job that is not at work, its state."""
    stage = status.stage
    if stage == WAITING and own_worker:
        return _STARTING
    if stage is None and status.state == JobState.EMBEDDING:  # an older service does not say
        return EMBEDDING
    return stage or str(status.state)


def _sentence(stage: str) -> str:
    return stage[:1].upper() + stage[1:]
