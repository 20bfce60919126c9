"""Finds work in the store whose wake-up call was lost, and sends the call again.

A worker does it by itself, every few seconds one of all; so does `watch`, and `resume` does it when asked.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .background import repeating
from .errors import BrokerUnreachableError, StoreRefusedError, StoreUnreachableError
from .store import Store
from .submissions import ABANDONED_SECONDS
from .workers import LOST_SECONDS

if TYPE_CHECKING:  # who has a queue has loaded Celery
    from .queue import Queue

logger = logging.getLogger(__name__)

_TURN_SECONDS = 5.0
_TICK_SECONDS = 2.0
_ON_ITS_WAY_SECONDS = 5.0
"""A call that was noted so long ago has been sent, or never will be."""


def send_calls(store: Store, queue: "Queue", job_id: str) -> int:
    """Call workers for the next batches of a job, or, when all are done, for its scoring.

    Returns:
        How many calls were sent.

    Raises:
        BrokerUnreachableError: the broker does not take them; `reconcile` will send them when it is back.
    """
    sent = queue.embed(store.batches.next_calls(job_id))
    if sent == 0 and store.begin_scoring(job_id):
        queue.aggregate(job_id, store.find_job(job_id).priority)
        sent = 1
    return sent


def reconcile(store: Store, queue: "Queue") -> int:
    """Send every call that is missing, and none that is alive. Returns how many.

    Raises:
        BrokerUnreachableError: the broker cannot be asked what it has, or takes no calls.
    """
    alive = queue.alive()
    sent = queue.embed(store.batches.missed_calls(alive.batches, _ON_ITS_WAY_SECONDS))
    for job in store.missed_scorings(alive.jobs, _ON_ITS_WAY_SECONDS):
        queue.aggregate(job.id, job.priority)
        sent += 1
    waiting, finished = store.batches.open_jobs()
    for job_id in [*waiting, *finished]:
        sent += send_calls(store, queue, job_id)
    return sent


@contextmanager
def reconciling(store: Store, queue: "Queue", may: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Reconcile while the block runs, in a thread: nobody waits for a Redis that does not answer.

    Args:
        store: an outage of it is left for the block to find out. Who may only read it leaves all to others.
        queue: an outage of it is logged, once.
        may: asked each time.
    """
    reconciler = Reconciler(store, queue)

    def tick() -> None:
        with suppress(StoreUnreachableError, StoreRefusedError):
            if may():
                reconciler.tick()

    with repeating(_TICK_SECONDS, tick):
        yield


class Reconciler:
    """Call `tick` every few seconds."""

    def __init__(self, store: Store, queue: "Queue") -> None:
        self._store = store
        self._queue = queue
        self._last_tick = float("-inf")
        self._in_touch_since = float("inf")
        self._broker_error: str | None = None

    def tick(self) -> None:
        """Do what is due. A broker that does not answer is logged, once.

        Raises:
            StoreUnreachableError: the store cannot be used.
        """
        now = time.monotonic()
        if now - self._last_tick > LOST_SECONDS / 2:
            self._in_touch_since = now
        self._last_tick = now
        try:
            self._reconcile(now)
        except StoreUnreachableError:
            self._last_tick = float("-inf")
            raise

    def _reconcile(self, now: float) -> None:
        if not self._store.workers.take_turn("reconcile", _TURN_SECONDS):
            return
        # After an outage of the store, or when this process was stopped for a while, all hearts seem to have
        # stopped. Whoever was in touch all along may judge.
        if now - self._in_touch_since > LOST_SECONDS:
            for name in self._store.workers.release_lost():
                logger.warning("worker %s is lost: its work goes to others", name)
        if now - self._in_touch_since > ABANDONED_SECONDS:
            for job_id in self._store.submissions.fail_abandoned():
                logger.warning("the submitter of job %s is lost: it failed", job_id)
        try:
            sent = reconcile(self._store, self._queue)
        except BrokerUnreachableError as error:
            if self._broker_error is None:
                logger.warning("%s", error)
            self._broker_error = str(error)
            return
        if self._broker_error is not None:
            logger.warning("the broker answers again")
            self._broker_error = None
        if sent:
            logger.info("%d calls sent again", sent)
