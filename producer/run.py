"""One job from its source to its report, on this machine: submit, one worker, watch."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..models.errors import JobStateError, StoppedError
from ..models.queue import Queue
from ..models.reconcile import send_calls
from ..models.records import Job
from ..models.settings import Settings
from ..models.store import Store
from .broker import EmbeddedBroker
from .local import WorkerProcess, broker
from .status import JobStatus, job_status
from .submit import Prepared, store_job
from .watch import Display, follow


def run_job(
    prepared: Prepared, store: Store, settings: Settings, display: Display, device: str | None = None
) -> JobStatus:
    """Store a job and do it here.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; the job stays as it is.
        ScanomalyError: the broker or the worker does not start, or dies.
    """
    return _run(lambda: store_job(prepared, store, settings), store, settings, display, device)


def resume_job(
    job_id: str, store: Store, settings: Settings, display: Display, device: str | None = None
) -> JobStatus:
    """Finish a job that was interrupted. One that has ended already is just shown.

    Raises:
        JobStateError: the job was cancelled or failed.
        StoppedError, ScanomalyError: as `run_job`.
    """
    status = job_status(store, job_id)
    if status.error is not None:
        raise JobStateError(f"job {status.job.id} is {status.job.state}: `scanomaly retry` takes up a failed job")
    if status.job.state.ended:
        return status
    return _run(lambda: status.job, store, settings, display, device)


def _run(
    job_of: Callable[[], Job], store: Store, settings: Settings, display: Display, device: str | None
) -> JobStatus:
    job: Job | None = None
    try:
        with (
            _sigterm_as_interrupt(),
            broker(settings, store) as embedded,
            WorkerProcess(settings, device) as worker,
        ):
            job = job_of()
            store.unpause(job.id)
            send_calls(store, Queue(settings), job.id)
            return _follow(store, job.id, display, worker, embedded, settings.store_seconds)
    except KeyboardInterrupt:
        if job is None:
            raise
        raise StoppedError(
            f"stopped; the job stays, and `scanomaly run --resume {job.id}` or any worker finishes it"
        ) from None


def _follow(
    store: Store,
    job_id: str,
    display: Display,
    worker: WorkerProcess,
    embedded: EmbeddedBroker | None,
    store_seconds: float,
) -> JobStatus:
    def check() -> None:
        worker.check()
        if embedded is not None:
            embedded.revive()

    try:
        return follow(store, job_id, display, store_seconds, check)
    except KeyboardInterrupt:
        display.say("Stopping after the running batch; Ctrl-C again stops at once")
        raise


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM would end this process without stopping what it started."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
