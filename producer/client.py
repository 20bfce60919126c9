"""For other Python programs: submits jobs, follows them, and reads their scores. Needs no torch."""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack, cast

from ..models.broker_url import parse_broker_url
from ..models.errors import UsageError, WaitTimeoutError
from ..models.nearest import nearest
from ..models.patience import patiently
from ..models.records import DEFAULT_FALSE_ALARM_RATE, JobFilter, ListedScan, ScanFilter, Worker
from ..models.settings import Settings
from ..models.states import JobState, Priority
from .jobs import Jobs, StoreJobs, all_scans
from .remote import RemoteJobs, is_service_url
from .status import JobStatus
from .submit import JobOptions
from .watch import Hints

_COMMAND_LINE = {"scorer": "scorers", "labels": "labels_file"}
"""Options that the command line has in the singular, or shorter."""
_LISTS = ("normal", "anomaly", "scorers")
_OPTIONS = tuple(JobOptions.__annotations__)
_OF_THE_STORE = ("out", "follow_links")
"""What a service does not take, which decides about its own disk."""


class Client:
    """Jobs, through a store or through the HTTP service, in the same way.

    ```
    with Client("http://127.0.0.1:8321") as client:
        job = client.submit("/data/scans", encoder="efficientnet_lite0").job
        print(client.wait(job, timeout=3600).result["auroc"])
        for scan in client.scores(job):
            print(scan.path, scan.score)
    ```

    Every method raises ServiceUnreachableError or StoreUnreachableError where the other side cannot be reached.
    """

    def __init__(self, url: str | None = None, token: str | None = None, broker_url: str | None = None) -> None:
        """Connect.

        Args:
            url: of a service, `http://127.0.0.1:8321` or without `http://`; or a store's, as SCANOMALY_STORE_URL
                has it; None for what the settings name: SCANOMALY_SERVER_URL, else the store.
            token: of a service; None for SCANOMALY_API_TOKEN.
            broker_url: with a store, the broker by which its workers are called; None for SCANOMALY_BROKER_URL.

        Raises:
            UsageError: a URL or a setting cannot be right.
        """
        settings = Settings.from_environment()
        if url is None:
            url = settings.server_url
        if url is not None and is_service_url(url):
            self._jobs: Jobs = RemoteJobs(url, token or settings.api_token)
        elif url is not None and "://" not in url:
            raise UsageError(
                f"{url!r} is neither the URL of a service such as http://127.0.0.1:8321 nor of a store such as "
                "sqlite:////path/store.sqlite"
            )
        else:
            settings = replace(settings, store_url=url) if url else settings
            settings = replace(settings, broker_url=parse_broker_url(broker_url)) if broker_url else settings
            self._jobs = StoreJobs(settings)
        self._store_seconds = settings.store_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._jobs.close()

    def submit(self, source: str | Path, *, key: str | None = None, **options: Unpack[JobOptions]) -> JobStatus:
        """Queue a job.

        Args:
            source: a folder of scans; of the service's machine, if it goes there.
            key: an idempotency key, for the service: sent again with the same, a submission makes no second job.
            options: see `JobOptions`. The names of the command line (`scorer`, `labels`) do as well, and one text
                where several can be given: `scorers="knn,centroid"`, `normal="no/"`.

        Raises:
            UsageError, SourceError, EncoderError: what is asked for cannot be right.
            NotAllowedError: the service wants another token, or has not this folder.
        """
        return self._jobs.submit(str(source), key, **_job_options(options, isinstance(self._jobs, StoreJobs)))

    def status(self, job: str) -> JobStatus:
        """How far a job is. Raises JobNotFoundError."""
        return self._jobs.status(job)

    def wait(self, job: str, timeout: float | None = None) -> JobStatus:
        """Wait for a job's end: done, failed or cancelled. An outage in between is waited for as the settings say.

        Where nothing moves, because no worker is running or the job is paused, a UserWarning says so.

        Args:
            job: its id.
            timeout: seconds; None for as long as it takes.

        Raises:
            WaitTimeoutError: it has not ended by then. The job goes on.
            JobNotFoundError: there is no such job.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        hints = Hints(lambda reason: warnings.warn(f"job {job}: {reason}", UserWarning, stacklevel=4), at_once=True)
        while True:
            status = patiently(self._store_seconds, lambda: self._jobs.status(job))
            if status.state.ended:
                return status
            hints.update(status)
            left = None if deadline is None else deadline - time.monotonic()
            if timeout is not None and left is not None and left <= 0:
                reason = status.standstill or "it goes on"
                raise WaitTimeoutError(f"job {status.job} is still {status.state} after {timeout:g} s; {reason}")
            time.sleep(self._jobs.poll_seconds if left is None else min(self._jobs.poll_seconds, left))

    def jobs(self, *states: JobState | str) -> Iterator[JobStatus]:
        """The jobs, newest first; with states (`"done"`), only those in one of them.

        Raises:
            UsageError: there is no such state.
        """
        return self._pages_of_jobs(JobFilter(tuple(_state(state) for state in states)))

    def _pages_of_jobs(self, wanted: JobFilter) -> Iterator[JobStatus]:
        after: str | None = None
        while True:
            page = self._jobs.jobs(wanted, 100, after)
            yield from page.jobs
            if page.after is None:
                return
            after = page.after

    def scores(self, job: str, scorer: str | None = None) -> Iterator[ListedScan]:
        """The scored scans of a job, the most anomalous first, read page by page.

        Args:
            job: its id.
            scorer: of which the scores are; None for the one that ranks.

        Raises:
            JobNotFoundError: there is no such job.
            UsageError: the job has no such scorer.
        """
        return all_scans(self._jobs, job, ScanFilter(by_score=True), scorer)

    def scans(self, job: str, wanted: ScanFilter | None = None, scorer: str | None = None) -> Iterator[ListedScan]:
        """The scans of a job, in order of submission unless `wanted` says otherwise, read page by page."""
        return all_scans(self._jobs, job, wanted or ScanFilter(), scorer)

    def cancel(self, job: str) -> JobStatus:
        """Stop a job; what is embedded stays in the store. Raises JobNotFoundError, JobStateError."""
        return self._jobs.cancel(job)

    def pause(self, job: str) -> JobStatus:
        """Let no more batches of a job begin. Raises JobNotFoundError, JobStateError."""
        return self._jobs.pause(job)

    def resume(self, job: str) -> JobStatus:
        """Take up a paused job. Raises JobNotFoundError, JobStateError."""
        return self._jobs.resume(job)

    def retry(self, job: str) -> JobStatus:
        """Queue the scans of a job that failed again. Raises JobNotFoundError, JobStateError."""
        return self._jobs.retry(job)

    def score(self, job: str, scorers: str | Sequence[str] = (), headline: str | None = None) -> JobStatus:
        """Have the workers score a done job with more scorers.

        Args:
            job: its id.
            scorers: names, or one text with commas between them; none, where only `headline` is to change.
            headline: the scorer that ranks the scans from then on; None for the one that does.

        Raises:
            JobNotFoundError, JobStateError, UsageError: there is no such job, it is not done, or a scorer is not
                known or cannot work with its embeddings.
        """
        names = _texts(scorers)
        if not names and headline is None:
            raise UsageError("name scorers, or a headline")
        return self._jobs.score(job, names, headline)

    def workers(self) -> list[Worker]:
        """The workers of the last week, the newest first."""
        return self._jobs.workers()


def _job_options(options: Mapping[str, Any], of_store: bool) -> JobOptions:
    """Options by the names of `JobOptions`, with lists where those are.

    Args:
        options: as they are given.
        of_store: the job goes into a store, which takes `out` and `follow_links` too.

    Raises:
        UsageError: there is no such option, or it is given twice.
    """
    found: dict[str, Any] = {}
    for given, value in options.items():
        name = _COMMAND_LINE.get(given, given)
        if name in _OF_THE_STORE and not of_store:
            raise UsageError(f"{given!r} is not for a service, which decides about its own disk: leave it out")
        known = (*_OPTIONS, *_OF_THE_STORE)
        if name not in known:
            hint = nearest(given, (*known, *_COMMAND_LINE))
            raise UsageError(f"there is no option {given!r} for a job{hint}: {', '.join(known)}")
        if name in found:
            raise UsageError(f"{given!r} and {name!r} are the same option: give one of them")
        if name in _LISTS:
            found[name] = _texts(value, commas=name == "scorers")
        else:
            found[name] = Path(value) if name == "out" and value is not None else value
    _check(found)
    return cast(JobOptions, found)


def _check(options: Mapping[str, Any]) -> None:
    """What nobody looks at before it is stored."""
    priorities = [priority.value for priority in Priority]
    priority = options.get("priority", Priority.NORMAL)
    if priority not in priorities:
        hint = nearest(str(priority), priorities)
        raise UsageError(f"there is no priority {priority!r}{hint}: {', '.join(priorities)}")
    rate, size = options.get("false_alarm_rate", DEFAULT_FALSE_ALARM_RATE), options.get("batch_size")
    if not 0 < rate < 1:
        raise UsageError(f"false_alarm_rate={rate!r} is not a share above 0 and below 1")
    if size is not None and not 1 <= size <= 10_000:
        raise UsageError(f"batch_size={size!r} is not from 1 to 10000")


def _texts(value: str | Sequence[str] | None, commas: bool = True) -> list[str]:
    """Several texts, where one may have been given for them all."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if commas else [value]
    return list(value or ())


def _state(text: JobState | str) -> JobState:
    try:
        return JobState(text)
    except ValueError:
        states = [state.value for state in JobState]
        known = ", ".join(states)
        raise UsageError(f"there is no state {text!r} of jobs{nearest(str(text), states)}: {known}") from None
