"""The parent of a worker: its heart, and whoever starts the process that computes again when that dies.

It takes no message and opens no image, so that nothing that a scan can do reaches it.
"""

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version

from ..models.errors import BrokerUnreachableError, ScanomalyError, StoreUnreachableError
from ..models.patience import patiently
from ..models.queue import Queue
from ..models.reconcile import reconcile, reconciling
from ..models.settings import Settings
from ..models.store import Store
from ..models.workers import BEAT_SECONDS
from .consume import CANNOT_WORK, NO_STORE
from .encoding.installed import installed_encoders
from .hearing import hearing
from .lifeline import stop_with_stdin

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_LONGEST_PAUSE = 30.0


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
        self._command = [sys.executable, "-m", "scanomaly.worker.consume", "--name", self.name]
        self._command += ["--loglevel", loglevel, *celery_options]
        self._encoders = installed_encoders()
        self._stop = threading.Event()
        self._last_beat = float("-inf")
        self._store_lost_at: float | None = None

    def run(self, until_stdin_ends: bool = False) -> None:
        """Work until SIGTERM or SIGINT.

        Raises:
            ScanomalyError: the process that computes cannot start, or the store was away for too long.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._stop.set())
        if until_stdin_ends:
            stop_with_stdin()
        self._beat()
        logger.info("worker %s is ready", self.name)
        with reconciling(self._store, self._queue):
            self._work()
        self._forgiving(lambda: self._store.workers.stop(self.name))
        self._call_again()
        logger.info("worker %s has stopped", self.name)

    def _work(self) -> None:
        """Run one process that computes after the other."""
        pause = 0.0
        while not self._stop.is_set():
            begun = time.monotonic()
            held_something = self._compute()
            # One that dies of scans is needed at once, and the scans' deaths are counted. One that dies of nothing,
            # soon after it began, would do so for ever.
            fine = held_something or time.monotonic() - begun > _LONGEST_PAUSE
            pause = 0.0 if fine else min(_LONGEST_PAUSE, 2 * pause + 1)
            self._wait(pause)

    def _compute(self) -> bool:
        """Run the process that computes until it ends or this worker is told to stop.

        Returns:
            Whether it died while it held a batch or a job.
        """
        # Its standard input is a pipe that only this process holds: it ends with this one, however this one dies.
        with hearing(self._queue) as ear:
            command = [*self._command, "--signs", str(ear.descriptor)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[ear.descriptor])
            try:
                while process.poll() is None and not self._stop.is_set():
                    self._keep_beating()
                    if ear.is_deaf():
                        logger.error("the computing process is idle and takes no calls, though some wait: killed")
                        process.kill()
                    self._pause(process)
                if process.poll() is not None:
                    return self._bury(process.returncode)
                self._end(process)
                return False
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
                assert process.stdin is not None
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
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.grace_seconds
        while process.poll() is None and time.monotonic() < deadline:
            self._keep_beating()
            self._pause(process)
        if process.poll() is None:
            logger.warning("the batch did not end in time: it goes back to the queue")
            process.kill()
            process.wait()

    def _bury(self, code: int) -> bool:
        """See to what the process held when it died. Returns whether it held anything.

        Raises:
            ScanomalyError: it did not die of a scan, but says that it cannot work here.
        """
        if code == CANNOT_WORK:
            raise ScanomalyError("the worker cannot work here: the lines above say why")
        what = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        logger.warning("the computing process %s: another takes its place", what)
        # Before that one starts: what is held in this worker's name would be taken for its own.
        died = code != NO_STORE
        held = patiently(
            self._settings.store_seconds, lambda: self._store.workers.release(self.name, died), self._stop
        )
        self._call_again()
        return held

    def _call_again(self) -> None:
        """Have what was given back done at once. Who cannot be told now will find out by reconciling."""
        try:
            reconcile(self._store, self._queue)
        except (StoreUnreachableError, BrokerUnreachableError) as error:
            logger.warning("%s", error)
