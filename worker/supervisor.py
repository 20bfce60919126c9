"""The parent of a worker: its heart, and whoever starts the process that computes again when that dies.

It takes no message and opens no image, so that nothing that a scan can do reaches it.
"""

import logging
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version

from ..models.errors import (
    BrokerUnreachableError,
    CannotWorkError,
    StoreUnreachableError,
)
from ..models.interrupts import when_told_to_stop
from ..models.patience import patiently
from ..models.processes import describe_end, log_file, python_command
from ..models.queue import Queue
from ..models.reconcile import reconcile, reconciling
from ..models.settings import Settings
from ..models.store import Store
from ..models.workers import BEAT_SECONDS
from .consume import CANNOT_WORK, NO_STORE
from .encoding.installed import installed_encoders
from .hearing import Hearing, hearing
from .lifeline import stop_with_stdin
from .tail import Tail

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_LONGEST_PAUSE = 30.0
_MOST_FUTILE = 4
"""So many processes in a row that end without having done anything, and the worker gives up."""


class Supervisor:
    """One worker: keeps its heart beating and its process computing until it's told to stop."""

    def __init__(self, settings: Settings, loglevel: str = "INFO", celery_options: Sequence[str] = ()) -> None:
        """Raises StoreUnreachableError, SchemaError or UsageError."""
        self._settings = settings
        self._store = Store.open(settings)
        self._queue = Queue(settings)
        self._host = socket.gethostname()
        # New at every start: in a container host and process id are the same each time.
        self.name = f"{self._host[:60]}-{os.getpid()}-{secrets.token_hex(3)}"
        self._command = python_command("worker.consume", "--name", self.name, "--loglevel", loglevel)
        log = log_file()
        self._command += [*(["--log", log] if log else []), *celery_options]
        self._encoders = installed_encoders()
        self._stop = threading.Event()
        self._last_beat = float("-inf")
        self._store_lost_at: float | None = None
        self._futile = 0
        """How many processes in a row have ended without having done anything."""

    def run(self, until_stdin_ends: bool = False) -> None:
        """Work until SIGTERM, SIGINT or SIGHUP.

        Raises:
            CannotWorkError: the process that computes says so, or ends again and again and has done nothing.
            StoreUnreachableError: the store was away for too long.
        """
        when_told_to_stop(lambda _number, _frame: self._stop.set())
        if until_stdin_ends:
            stop_with_stdin()
        self._beat()
        logger.info("worker %s is ready", self.name)
        try:
            with reconciling(self._store, self._queue):
                self._work()
        except Exception as error:
            with suppress(StoreUnreachableError):
                self._store.workers.stop(self.name, " ".join(str(error).split()))
            raise
        self._forgiving(lambda: self._store.workers.stop(self.name))
        self._call_again()
        logger.info("worker %s has stopped", self.name)

    def _work(self) -> None:
        """Run one process that computes after the other."""
        pause = 0.0
        while not self._stop.is_set():
            self._compute()
            # One that dies of scans is needed at once, and the scans' deaths are counted. One that dies of nothing
            # would do so for ever.
            pause = min(_LONGEST_PAUSE, 2 * pause + 1) if self._futile else 0.0
            self._wait(pause)

    def _compute(self) -> None:
        """Run the process that computes until it ends or this worker is told to stop.

        Raises:
            CannotWorkError: as `run`.
        """
        begun = time.monotonic()
        # Its standard input is a pipe that only this process holds: it ends with this one, however this one dies.
        with hearing(self._queue) as ear:
            command = [*self._command, "--signs", str(ear.descriptor)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[ear.descriptor]
            )
            assert process.stdin is not None
            assert process.stderr is not None
            tail = Tail(process.stderr)
            try:
                while process.poll() is None and not self._stop.is_set():
                    self._keep_beating()
                    if ear.is_deaf():
                        logger.error("the computing process is idle and takes no calls, though some wait: killed")
                        process.kill()
                    self._pause(process)
                if process.poll() is not None:
                    self._bury(process.returncode, tail, ear, time.monotonic() - begun)
                else:
                    self._end(process)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
                process.stdin.close()

    def _pause(self, process: "subprocess.Popen[bytes]") -> None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stop.wait(min(_LOOK_SECONDS, max(0.0, end - time.monotonic()))):
            self._keep_beating()
            if time.monotonic() >= end:
                return

    def _keep_beating(self) -> None:
        """Beat, when it is time."""
        if time.monotonic() - self._last_beat >= BEAT_SECONDS:
            self._forgiving(self._beat)
            self._last_beat = time.monotonic()

    def _beat(self) -> None:
        device = self._settings.device
        self._store.workers.beat(self.name, self._host, os.getpid(), device, version("scanomaly"), self._encoders)

    def _forgiving(self, action: Callable[[], object]) -> None:
        """Do something with a store that may be away for a while, but not for ever.

        Raises:
            StoreUnreachableError: it has been away for longer than the settings allow.
        """
        try:
            action()
        except StoreUnreachableError as error:
            now = time.monotonic()
            if self._store_lost_at is None:
                self._store_lost_at = now
                logger.warning("%s; trying again for %.0f s", error, self._settings.store_seconds)
            if now - self._store_lost_at > self._settings.store_seconds:
                away = f"the worker stops after {now - self._store_lost_at:.0f} s without a store"
                hint = "nothing is lost: start it again when the store is back"
                raise StoreUnreachableError(f"{error}; {away}; {hint}") from error
        else:
            if self._store_lost_at is not None:
                logger.warning("the store %s answers again", self._store.name)
            self._store_lost_at = None

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        """Let the running batch end within the grace time; after it, the batch goes back to the queue."""
        logger.info("stopping: the running batch has %.0f s to end", self._settings.grace_seconds)
        process.terminate()
        deadline = time.monotonic() + self._settings.grace_seconds
        while process.poll() is None and time.monotonic() < deadline:
            self._keep_beating()
            self._pause(process)
        if process.poll() is None:
            logger.warning("the batch did not end in time: it goes back to the queue")
            process.kill()
            process.wait()

    def _bury(self, code: int, tail: Tail, ear: Hearing, seconds: float) -> None:
        """See to what the process held when it died, and count whether it did anything.

        Raises:
            CannotWorkError: it says that it cannot work here, or it was one too many that did nothing.
        """
        if code == CANNOT_WORK:
            raise CannotWorkError(f"the worker cannot work here: {tail.last_message()}")
        end = describe_end(code)
        # Before another starts: what is held in this worker's name would be taken for its own.
        died = code != NO_STORE
        held = patiently(
            self._settings.store_seconds, lambda: self._store.workers.release(self.name, died), self._stop
        )
        self._call_again()
        # A death with a batch is counted there. Who waited for calls for long did nothing wrong either, unless it
        # was deaf to them.
        waited = seconds > _LONGEST_PAUSE and not ear.is_deaf()
        useful = ear.calls_done > 0 or (died and (held or waited))
        self._futile = 0 if useful else self._futile + 1
        if self._futile >= _MOST_FUTILE:
            last = tail.last_message()
            raise CannotWorkError(
                f"the worker stops: its computing process {end}, the {_MOST_FUTILE}th in a row without having done "
                f"anything{f'; its last line: {last}' if last else ''}"
            )
        logger.warning("the computing process %s: another takes its place", end)

    def _call_again(self) -> None:
        """Have what was given back done at once. Who cannot be told now will find out by reconciling."""
        try:
            reconcile(self._store, self._queue)
        except (StoreUnreachableError, BrokerUnreachableError) as error:
            logger.warning("%s", error)
