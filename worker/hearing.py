"""Whether the process that computes still takes calls: it says when it is idle, and Redis knows whether calls wait.

A process can be deaf without being dead. Celery, for one, logs an acknowledgement that fails, counts the message as
being worked at for ever, and with one message at a time never takes another.
"""

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from celery.signals import task_postrun, task_prerun, worker_ready

from ..models.background import repeating
from ..models.errors import BrokerUnreachableError
from ..models.queue import Queue

_LOOK_SECONDS = 2.5
_LOOKS = 6
"""An idle process takes a call at once. One seen idle beside waiting calls so many times in a row is deaf."""


def give_signs(descriptor: int) -> None:
    """Have this process, a Celery worker to be, write a line whenever it becomes busy or idle."""
    signs = _Signs(descriptor)
    worker_ready.connect(signs.ready, weak=False)
    task_prerun.connect(signs.begun, weak=False)
    task_postrun.connect(signs.ended, weak=False)


class _Signs:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._idle = "idle"
        self._running = 0
        self._lock = threading.Lock()

    def ready(self, sender: Any, **_: object) -> None:
        # A worker that was given --queues leaves the calls in others alone.
        self._idle = " ".join(["idle", *sender.app.amqp.queues.consume_from])
        self._write(self._idle)

    def begun(self, **_: object) -> None:
        with self._lock:
            self._running += 1
            self._write("busy")

    def ended(self, **_: object) -> None:
        with self._lock:
            self._running -= 1
            self._write("done" if self._running else f"done\n{self._idle}")

    def _write(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the supervisor is gone, and the lifeline ends this process
            os.write(self._descriptor, f"{line}\n".encode())


@contextmanager
def hearing(queue: Queue) -> Iterator["Hearing"]:
    """The supervisor's end of the pipe, for one process."""
    reader, descriptor = os.pipe()
    os.set_blocking(reader, False)
    ear = Hearing(queue, reader, descriptor)
    try:
        # In a thread: the supervisor's heart must not wait for Redis.
        with repeating(_LOOK_SECONDS, ear.look):
            yield ear
    finally:
        os.close(reader)
        os.close(descriptor)


class Hearing:
    """What is known of one process. `descriptor` is for it to inherit."""

    def __init__(self, queue: Queue, reader: int, descriptor: int) -> None:
        self.descriptor = descriptor
        self.calls_done = 0
        """How many calls the process has dealt with, as far as was listened."""
        self._queue = queue
        self._reader = reader
        self._unread = b""
        self._idle_in: Collection[str] = ()
        self._spoke = 0
        self._looks = (self._spoke, 0)

    def is_deaf(self) -> bool:
        """Listen to what the process said since the last call, at most a second ago."""
        with suppress(BlockingIOError):
            while part := os.read(self._reader, 65536):
                self._unread += part
        *lines, self._unread = self._unread.split(b"\n")
        if lines:
            self._spoke += 1
            self.calls_done += lines.count(b"done")
            word, *queues = lines[-1].decode().split()
            self._idle_in = queues if word == "idle" else ()
        return self._looks >= (self._spoke, _LOOKS)

    def look(self) -> None:
        """Count how often calls were seen waiting since the process last spoke."""
        spoke, idle_in = self._spoke, self._idle_in
        try:
            wait = bool(idle_in) and self._queue.calls_wait(idle_in)
        except BrokerUnreachableError:
            wait = False
        before = self._looks[1] if self._looks[0] == spoke else 0
        self._looks = (spoke, before + 1 if wait else 0)
