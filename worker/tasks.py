"""The Celery tasks: who is called, and what becomes of an error."""

import logging
from collections.abc import Callable
from functools import cache

from ..models.errors import BrokerUnreachableError, ScanomalyError, StoreUnreachableError
from ..models.queue import AGGREGATE_TASK, EMBED_TASK, Queue
from ..models.settings import Settings
from ..models.store import Store
from .app import app
from .embed import Embedder

logger = logging.getLogger(__name__)

# What another attempt may get past; Celery's backoff lies between the attempts.
_PASSING = (StoreUnreachableError, BrokerUnreachableError)
_RETRY = {"autoretry_for": _PASSING, "retry_backoff": True, "retry_backoff_max": 60, "max_retries": 10}


class _Process:
    """What a worker process opens once, at its first task: the parent and `celery inspect` never need it."""

    def __init__(self) -> None:
        self.settings = Settings.from_environment()
        self.store = Store.open(self.settings)
        self.embedder = Embedder(self.store, Queue(self.settings, app), self.settings)


@cache
def _process() -> _Process:
    return _Process()


@app.task(name=EMBED_TASK, **_RETRY)  # type: ignore[untyped-decorator]
def embed(batch_id: int) -> None:
    """Embed one batch."""
    process = _process()
    _run(process, process.store.job_of_batch(batch_id), lambda: process.embedder.embed(batch_id))


@app.task(name=AGGREGATE_TASK, **_RETRY)  # type: ignore[untyped-decorator]
def aggregate(job_id: str) -> None:
    """Score one job and write its report."""
    from .aggregate import Aggregator  # matplotlib and scikit-learn: not before the first batch is on its way

    process = _process()
    _run(process, job_id, lambda: Aggregator(process.store, process.settings).aggregate(job_id))


def _run(process: _Process, job_id: str | None, work: Callable[[], None]) -> None:
    """Do the work of a job; an error that no other attempt will get past ends the job, with a message."""
    try:
        work()
    except _PASSING:
        raise
    except ScanomalyError as error:
        logger.error("job %s: %s", job_id, error)
        _fail(process, job_id, str(error))
    except Exception as error:
        logger.exception("job %s", job_id)
        _fail(process, job_id, f"internal error in the worker, see its log: {type(error).__name__}: {error}")


def _fail(process: _Process, job_id: str | None, message: str) -> None:
    if job_id is not None:
        process.store.fail_job(job_id, message)
