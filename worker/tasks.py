"""The Celery tasks: who is called, and what becomes of an error."""

import logging
import os
from collections.abc import Callable
from functools import partial

from celery import Task

from ..models.errors import ScanomalyError, StoreUnreachableError
from ..models.patience import patiently
from ..models.queue import AGGREGATE_TASK, EMBED_TASK, Queue
from ..models.settings import Settings
from ..models.store import Store
from .app import app
from .consume import BROKEN, NO_STORE
from .embed import Embedder

logger = logging.getLogger(__name__)

_LONGEST_MESSAGE = 2000


class _Process:
    """What this process opens once, before it takes a call."""

    def __init__(self, log: str | None) -> None:
        self.log = log
        self.settings = Settings.from_environment()
        self.store = patiently(self.settings.store_seconds, lambda: Store.open(self.settings))
        self.embedder = Embedder(self.store, Queue(self.settings, app), self.settings)


_process: _Process


def open_process(log: str | None) -> None:
    """Make this process ready for calls.

    Args:
        log: the file that its log goes to, if it is one.

    Raises:
        StoreUnreachableError: the store was away for too long.
        ScanomalyError: it cannot work here.
    """
    global _process
    _process = _Process(log)


@app.task(name=EMBED_TASK, bind=True)  # type: ignore[untyped-decorator]
def embed(task: Task, batch_id: int) -> None:
    """Embed one batch."""
    if type(batch_id) is not int or not 0 < batch_id < 2**63:
        raise ValueError(f"no batch has the id {batch_id!r}")  # nobody sends that: Celery logs it, and that is all
    worker = _worker(task)
    _run(
        worker,
        lambda: _process.store.batches.job_of(batch_id),
        lambda: _process.embedder.embed(batch_id, worker),
    )


@app.task(name=AGGREGATE_TASK, bind=True)  # type: ignore[untyped-decorator]
def aggregate(task: Task, job_id: str) -> None:
    """Score one job and write its report."""
    if not (isinstance(job_id, str) and job_id.isalnum()):
        raise ValueError(f"no job has the id {job_id!r}")
    worker = _worker(task)
    _run(worker, lambda: job_id, partial(_aggregate, job_id, worker))


def _aggregate(job_id: str, worker: str) -> None:
    from .aggregate import Aggregator  # matplotlib and scikit-learn: not before the first batch is on its way

    with _process.embedder.alone():
        aggregator = Aggregator(_process.store, _process.settings, begins=_process.store.note_stage)
        aggregator.aggregate(job_id, worker)


def _worker(task: Task) -> str:
    """The name in which the supervisor beats: `consume.py` made it a part of Celery's node name."""
    node: str = task.request.hostname
    return node.partition("@")[2]


def _run(worker: str, job_of: Callable[[], str | None], work: Callable[[], None]) -> None:
    """Do the work of a job. An error that no other attempt will get past ends the job, with a message.

    An error that cannot be written into the store ends this process, which its supervisor counts: a call that was
    left alone would be sent again for ever, and what this process holds would be held for ever.
    """
    try:
        try:
            work()
        except StoreUnreachableError:
            raise
        except ScanomalyError as error:
            _fail(worker, job_of, str(error))
        except BaseException as error:  # a library that ends the program, too: it would end this thread alone
            logger.exception("internal error")
            _fail(worker, job_of, _internal_error(worker, error))
    except StoreUnreachableError as error:
        # The message is not acknowledged, and the store does not know that this process gives up. So it ends, and
        # its supervisor sees to what it held.
        logger.error("%s", error)
        os._exit(NO_STORE)
    except BaseException as error:
        logger.exception("internal error")
        logger.error("the error of a job cannot be stored: %s: %s", type(error).__name__, error)
        os._exit(BROKEN)


def _internal_error(worker: str, error: BaseException) -> str:
    log = f"its log {_process.log} has more" if _process.log else "its log has more"
    return f"internal error in the worker {worker}, {log}: {type(error).__name__}: {error}"


def _fail(worker: str, job_of: Callable[[], str | None], message: str) -> None:
    # One line, and nothing that a database refuses: an error may quote a file's bytes.
    line = " ".join(message.replace("\0", " ").split()).encode(errors="replace").decode()[:_LONGEST_MESSAGE]

    def fail() -> None:
        job_id = job_of()
        if job_id is not None and _process.store.fail_job(job_id, line, worker):
            logger.error("job %s: %s", job_id, line)

    patiently(_process.settings.store_seconds, fail)
