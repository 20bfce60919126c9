"""For other Python programs: submits jobs, follows them, and reads their scores. Needs no torch."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self, Unpack

from ..models.broker_url import parse_broker_url
from ..models.errors import WaitTimeoutError
from ..models.patience import patiently
from ..models.records import JobFilter, ListedScan, ScanFilter, Worker
from ..models.settings import Settings
from ..models.states import JobState
from .jobs import Jobs, StoreJobs, all_scans
from .remote import RemoteJobs
from .status import JobStatus
from .submit import JobOptions


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
            url: `http://` or `https://` of a service, or a store's, as SCANOMALY_STORE_URL has it; None for what
                the settings name: SCANOMALY_SERVER_URL, else the store.
            token: of a service; None for SCANOMALY_API_TOKEN.
            broker_url: with a store, the broker by which its workers are called; None for SCANOMALY_BROKER_URL.

        Raises:
            UsageError: a URL or a setting cannot be right.
        """
        settings = Settings.from_environment()
        if url is None:
            url = settings.server_url
        if url is not None and url.startswith(("http://", "https://")):
            self._jobs: Jobs = RemoteJobs(url, token or settings.api_token)
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

    def submit(self, source: str, *, key: str | None = None, **options: Unpack[JobOptions]) -> JobStatus:
        """Queue a job.

        Args:
            source: a folder of scans; of the service's machine, if it goes there.
            key: an idempotency key, for the service: sent again with the same, a submission makes no second job.
            options: see `JobOptions`.

        Raises:
            UsageError, SourceError, EncoderError: what is asked for cannot be right.
            NotAllowedError: the service wants another token, or has not this folder.
        """
        return self._jobs.submit(source, key, **options)

    def status(self, job: str) -> JobStatus:
        """How far a job is. Raises JobNotFoundError."""
        return self._jobs.status(job)

    def wait(self, job: str, timeout: float | None = None) -> JobStatus:
        """Wait for a job's end: done, failed or cancelled. An outage in between is waited for as the settings say.

        Args:
            job: its id.
            timeout: seconds; None for as long as it takes.

        Raises:
            WaitTimeoutError: it has not ended by then. The job goes on.
            JobNotFoundError: there is no such job.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            status = patiently(self._store_seconds, lambda: self._jobs.status(job))
            if status.state.ended:
                return status
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"job {status.job} is still {status.state} after {timeout:g} s; it goes on")
            time.sleep(self._jobs.poll_seconds)

    def jobs(self, *states: JobState) -> Iterator[JobStatus]:
        """The jobs, newest first; with states, only those in one of them."""
        after: str | None = None
        while True:
            page = self._jobs.jobs(JobFilter(states), 100, after)
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

    def score(self, job: str, scorers: Sequence[str], headline: str | None = None) -> JobStatus:
        """Have the workers score a done job with more scorers.

        Raises:
            JobNotFoundError, JobStateError, UsageError: there is no such job, it is not done, or a scorer is not
                known or cannot work with its embeddings.
        """
        return self._jobs.score(job, scorers, headline)

    def workers(self) -> list[Worker]:
        """The workers of the last week, the newest first."""
        return self._jobs.workers()
