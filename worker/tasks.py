"""The Celery tasks: who is called, and what becomes of an error."""

import logging
import os
import threading
from collections.abc import Callable
from functools import cache

from celery import Task

from ..models.errors import ScanomalyError, StoreUnreachableError
from ..models.patience import patiently
from ..models.queue import AGGREGATE_TASK, EMBED_TASK, Queue
from ..models.settings import Settings
from ..models.store import Store
from .app import app
from .consume import NO_STORE
from .embed import Embedder

logger = logging.getLogger(__name__)

_opening = threading.Lock()


class _Process:
    """What this process opens once, at its first task."""

    def __init__(self) -> None:
        self.settings = Settings.from_environment()
        self.store = Store.open(self.settings)
        self.embedder = Embedder(self.store, Queue(self.settings, app), self.settings)


def _process() -> _Process:
    with _opening:
        return _open()


@cache
def _open() -> _Process:
    return patiently(Settings.from_environment().store_seconds, _Process)


@app.task(name=EMBED_TASK, bind=True)  # type: ignore[untyped-decorator]
def embed(task: Task, batch_id: int) -> None:
    """Embed one batch."""
    worker = _worker(task)
    _run(
        worker,
        lambda: _process().store.batches.job_of(batch_id),
        lambda: _process().embedder.embed(batch_id, worker),
    )


@app.task(name=AGGREGATE_TASK, bind=True)  # type: ignore[untyped-decorator]
def aggregate(task: Task, job_id: str) -> None:
    """Score one job and write its report."""
    from .aggregate import Aggregator  # matplotlib and scikit-learn: not before the first batch is on its way

    worker = _worker(task)

    def work() -> None:
        process = _process()
        with process.embedder.alone():
            Aggregator(process.store, process.settings).aggregate(job_id, worker)

    _run(worker, lambda: job_id, work)


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
