"""One job from its source to its report, on this machine: submit, one worker, watch."""

from collections.abc import Callable
from functools import partial

from ..models.errors import JobStateError, StoppedError
from ..models.interrupts import stop_signals_as_interrupt
from ..models.queue import Queue
from ..models.reconcile import send_calls
from ..models.records import Job
from ..models.settings import Settings
from ..models.states import JobState
from ..models.store import Store
from .broker import EmbeddedBroker
from .local import WorkerProcess, broker, require_device
from .status import JobStatus, job_status
from .submit import Prepared, store_job
from .watch import Display, follow


def run_job(
    prepared: Prepared,
    store: Store,
    settings: Settings,
    display: Display,
    device: str | None = None,
    stored: Callable[[str, int], None] = lambda _job, _files: None,
) -> JobStatus:
    """Store a job and do it here.

    Args:
        prepared: the job.
        store: the store.
        settings: the settings.
        display: is told how far the job is.
        device: where the encoder should run.
        stored: see `store_job`.

    Raises:
        StoppedError: Ctrl-C, SIGTERM or SIGHUP; a job that was whole stays as it is.
        EncoderError: there is no such device; nothing was stored.
        ScanomalyError: the broker or the worker does not start, or dies.
    """

    def job_of(call: Callable[[str], object]) -> Job:
        return store_job(prepared, store, settings, call, stored)

    return _run(job_of, store, settings, display, device)


def resume_job(
    job_id: str, store: Store, settings: Settings, display: Display, device: str | None = None
) -> JobStatus:
    """Finish a job that was interrupted. One that has ended already is just shown.

    Raises:
        JobStateError: the job was cancelled or failed.
        StoppedError, EncoderError, ScanomalyError: as `run_job`.
    """
    status = job_status(store, job_id)
    if status.failure is not None:
        raise JobStateError(f"job {status.job} is {status.state}: `scanomaly retry` takes up a failed job")
    if status.state.ended:
        return status
    return _run(lambda _: store.find_job(status.job), store, settings, display, device)


def _run(
    job_of: Callable[[Callable[[str], object]], Job],
    store: Store,
    settings: Settings,
    display: Display,
    device: str | None,
) -> JobStatus:
    require_device(device or settings.device)
    job: Job | None = None
    call = partial(send_calls, store, Queue(settings))
    try:
        with (
            stop_signals_as_interrupt(),
            broker(settings, store) as embedded,
            WorkerProcess(settings, device) as worker,
        ):
            job = job_of(call)
            store.unpause(job.id)
            call(job.id)
            status = _follow(store, job.id, display, worker, embedded, settings.store_seconds)
            worker.log_is_wanted = status.state != JobState.DONE
            return status
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
        return follow(lambda: job_status(store, job_id), display, store_seconds, check)
    except KeyboardInterrupt:
        display.say("Stopping after the running batch; Ctrl-C again stops at once")
        raise
