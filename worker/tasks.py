"""The Celery tasks: who is called, and what becomes of an error."""

import logging
import os
from collections.abc import Callable
from functools import cache

from celery import Task
from celery.worker.request import Request
from kombu.asynchronous import get_event_loop

from ..models.errors import ScanomalyError, StoreUnreachableError
from ..models.patience import patiently
from ..models.queue import AGGREGATE_TASK, EMBED_TASK, Queue
from ..models.settings import Settings
from ..models.store import Store
from .app import app
from .consume import NO_BROKER, NO_STORE
from .embed import Embedder

logger = logging.getLogger(__name__)

_ACKNOWLEDGE_SECONDS = 3.0


class _Request(Request):  # type: ignore[misc]
    """A message in the hands of this process."""

    def acknowledge(self) -> None:
        """Acknowledge the message soon, or end.

        Celery logs an acknowledgement that fails, and goes on to count the message as being worked at: with one
        message at a time it would never take another. A new process connects anew.
        """
        super().acknowledge()
        loop = get_event_loop()
        assert loop is not None
        loop.call_later(_ACKNOWLEDGE_SECONDS, self._check)  # type: ignore[no-untyped-call]

    def _check(self) -> None:
        if not self.message.acknowledged:
            logger.error("the broker went away: this process ends, and another connects anew")
            os._exit(NO_BROKER)


class _Task(Task):  # type: ignore[misc]
    Request = _Request


class _Process:
    """What this process opens once, at its first task."""

    def __init__(self) -> None:
        self.settings = Settings.from_environment()
        self.store = Store.open(self.settings)
        self.embedder = Embedder(self.store, Queue(self.settings, app), self.settings)


@cache
def _process() -> _Process:
    return patiently(Settings.from_environment().store_seconds, _Process)


@app.task(name=EMBED_TASK, base=_Task, bind=True)  # type: ignore[untyped-decorator]
def embed(task: Task, batch_id: int) -> None:
    """Embed one batch."""
    worker = _worker(task)
    _run(
        worker,
        lambda: _process().store.batches.job_of(batch_id),
        lambda: _process().embedder.embed(batch_id, worker),
    )


@app.task(name=AGGREGATE_TASK, base=_Task, bind=True)  # type: ignore[untyped-decorator]
def aggregate(task: Task, job_id: str) -> None:
    """Score one job and write its report."""
    from .aggregate import Aggregator  # matplotlib and scikit-learn: not before the first batch is on its way

    worker = _worker(task)
    _run(
        worker, lambda: job_id, lambda: Aggregator(_process().store, _process().settings).aggregate(job_id, worker)
    )


def _worker(task: Task) -> str:
    """The name in which the supervisor beats: `consume.py` made it a part of Celery's node name."""
    node: str = task.request.hostname
    return node.partition("@")[2]


def _run(worker: str, job_of: Callable[[], str | None], work: Callable[[], None]) -> None:
    """Do the work of a job; an error that no other attempt will get past ends the job, with a message."""
    try:
        work()
    except StoreUnreachableError as error:
        # The message is not acknowledged, and the store does not know that this process gives up. So it ends, and
        # its supervisor sees to what it held.
        logger.error("%s", error)
        os._exit(NO_STORE)
    except ScanomalyError as error:
        _fail(worker, job_of, str(error))
    except Exception as error:
        logger.exception("internal error")
        _fail(worker, job_of, f"internal error in the worker, see its log: {type(error).__name__}: {error}")


def _fail(worker: str, job_of: Callable[[], str | None], message: str) -> None:
    process = _process()

    def fail() -> None:
        job_id = job_of()
        if job_id is not None and process.store.fail_job(job_id, message, worker):
            logger.error("job %s: %s", job_id, message)

    patiently(process.settings.store_seconds, fail)
