"""What the command line, the HTTP service and other programs do with jobs; here through the store and the queue."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, Unpack

from ..models.errors import AlreadySubmittedError, BrokerUnreachableError, JobStateError, KeyReusedError, UsageError
from ..models.hiding import Hiding
from ..models.records import Job, JobFilter, ListedScan, Place, ScanFilter, SubmissionKey, Worker
from ..models.scorers import check_scorers, needs_patches, parse_scorers
from ..models.settings import Settings
from ..models.store import Store
from .local import call_scorers, call_workers, require_broker_rights
from .local import resume as resume_work
from .named_files import NamedFiles
from .status import JobStatus, job_status
from .submit import JobOptions, make_request, prepare, store_job

JOBS_PAGE = 100
SCANS_PAGE = 5_000
"""Scans that are read at once where all are wanted."""


class JobPage(NamedTuple):
    jobs: list[JobStatus]
    after: str | None
    """Where the next page begins; None on the last one."""


class ScanPage(NamedTuple):
    scans: list[ListedScan]
    after: str | None
    """Where the next page begins; None on the last one."""


class Jobs(Protocol):
    """The jobs of one store. Ids may be cut short, as long as one job's only begins like that."""

    poll_seconds: float
    """How often who waits for a job may ask for it."""

    def submit(self, source: str, key: str | None = None, **options: Unpack[JobOptions]) -> JobStatus: ...
    def status(self, job: str) -> JobStatus: ...
    def jobs(self, wanted: JobFilter, limit: int, after: str | None = None) -> JobPage: ...
    def cancel(self, job: str) -> JobStatus: ...
    def pause(self, job: str) -> JobStatus: ...
    def resume(self, job: str) -> JobStatus: ...
    def retry(self, job: str) -> JobStatus: ...
    def score(self, job: str, scorers: Sequence[str], headline: str | None = None) -> JobStatus: ...
    def scans(
        self,
        job: str,
        wanted: ScanFilter,
        limit: int,
        after: str | None = None,
        scorer: str | None = None,
    ) -> ScanPage: ...
    def workers(self) -> list[Worker]: ...
    def close(self) -> None: ...


class StoreJobs:
    """Jobs, through the store and the queue."""

    poll_seconds = 0.3

    def __init__(
        self, settings: Settings, store: Store | None = None, say: Callable[[str], object] = lambda _: None
    ) -> None:
        """Args:
        settings: the settings.
        store: an open one, which stays open; None to open that of the settings.
        say: told what else a person should know, in a sentence.
        """
        self._settings = settings
        self._mine = store is None
        self._store = store or Store.open(settings)
        self._say = say

    def close(self) -> None:
        if self._mine:
            self._store.close()

    def submit(
        self,
        source: str,
        key: str | None = None,
        stored: Callable[[str, int], None] = lambda _job, _files: None,
        files: NamedFiles | None = None,
        found: Callable[[int], None] = lambda _: None,
        **options: Unpack[JobOptions],
    ) -> JobStatus:
        """Queue a job. Returns when all of it is stored.

        Args:
            source: what it is made of.
            key: an idempotency key: when a job was submitted with it before, that one is returned.
            stored: told after each part the job's id, and how many files are in the store.
            files: opens what the source and the options name.
            found: told now and then how many files were found.
            options: see `JobOptions`.

        Raises:
            UsageError, SourceError, DatasetError, EncoderError: what is asked for cannot be right.
            KeyReusedError: the key was used for another submission.
            StoreUnreachableError: the store was away for too long.
            BrokerRightsError: the broker's user may not do what workers do.
        """
        with_key = None if key is None else SubmissionKey(key, _digest(source, options))
        if with_key is not None and (before := self._submitted(with_key)) is not None:
            return before
        prepared = prepare(make_request(source, self._settings, files=files, **options), self._settings, found)
        require_broker_rights(self._settings)
        call = partial(call_workers, self._settings, self._store)
        try:
            job = store_job(prepared, self._store, self._settings, call, stored, with_key)
        except AlreadySubmittedError:  # by another process, a moment ago
            if with_key is None or (before := self._submitted(with_key)) is None:
                raise
            return before
        if job.whole:
            self._call(job.id)
        return self.status(job.id)

    def _submitted(self, key: SubmissionKey) -> JobStatus | None:
        before = self._store.submissions.of_key(key.key)
        if before is None:
            return None
        job_id, digest = before
        if digest != key.digest:
            raise KeyReusedError()
        return self.status(job_id)

    def status(self, job: str) -> JobStatus:
        """How far a job is. Raises JobNotFoundError."""
        return job_status(self._store, job)

    def jobs(self, wanted: JobFilter, limit: int, after: str | None = None) -> JobPage:
        """Jobs, newest first. Raises JobNotFoundError where there is no job `after`."""
        found = self._store.lists.jobs(wanted, limit + 1, after)
        page = found[:limit]
        progress = self._store.lists.progress([job.id for job in page])
        alive = self._store.workers.alive()
        statuses = [JobStatus.of(job, progress[job.id], alive) for job in page]
        return JobPage(statuses, page[-1].id if len(found) > limit else None)

    def cancel(self, job: str) -> JobStatus:
        """Stop a job. Raises JobNotFoundError, JobStateError."""
        found = self._find(job)
        self._store.cancel(found.id)
        return self.status(found.id)

    def pause(self, job: str) -> JobStatus:
        """Let no more batches of a job begin. Raises JobNotFoundError, JobStateError."""
        found = self._find(job)
        self._store.pause(found.id)
        return self.status(found.id)

    def resume(self, job: str) -> JobStatus:
        """Take up a paused job. Raises JobNotFoundError, JobStateError."""
        found = self._find(job)
        try:
            _, notes = resume_work(self._settings, self._store, found.id)
        except BrokerUnreachableError as error:
            notes = [f"the workers hear of it when the broker is back: {error}"]
        for note in notes:
            self._say(note)
        return self.status(found.id)

    def retry(self, job: str) -> JobStatus:
        """Queue the scans of a job that failed again. Raises JobNotFoundError, JobStateError."""
        found = self._find(job)
        count = self._store.reopen(found.id, self._settings.batch_size)
        self._say(f"{count} scans of job {found.id} are queued again")
        self._call(found.id)
        return self.status(found.id)

    def score(self, job: str, scorers: Sequence[str], headline: str | None = None) -> JobStatus:
        """Have the workers score a done job with more scorers, from its stored vectors, and write its report again.

        Args:
            job: the job.
            scorers: names, beside those that it has.
            headline: the scorer that ranks the scans from then on; None for the one that does.

        Raises:
            UsageError: a scorer is unknown, or cannot work with what the job's encoder makes.
            JobNotFoundError: there is no such job.
            JobStateError: it is not done, or has not what a scorer compares.
        """
        found = self._find(job)
        names = parse_scorers(",".join([*([headline] if headline else []), *scorers]))
        check_scorers(names, found.encoder)
        if needs_patches(names) and not found.encoder.patches:
            raise JobStateError(
                f"job {found.id} has no patches: submit the scans again with a scorer that needs them"
            )
        order = dict.fromkeys([*([headline] if headline else []), *found.scorers, *names])
        self._store.rescore(found.id, tuple(order))
        for note in call_scorers(self._settings, self._store, found.id):
            self._say(note)
        return self.status(found.id)

    def scans(
        self,
        job: str,
        wanted: ScanFilter,
        limit: int,
        after: str | None = None,
        scorer: str | None = None,
    ) -> ScanPage:
        """A page of a job's scans.

        Args:
            job: the job.
            wanted: which, and in what order.
            limit: how many at most.
            after: where the page before ended, as it says.
            scorer: whose scores come with them; None for the one that ranks.

        Raises:
            JobNotFoundError: there is no such job.
            UsageError: the job has no such scorer, or `after` is not what a page said.
        """
        found = self._find(job)
        scorer = scorer or found.scorers[0]
        if scorer not in found.scorers:
            raise UsageError(f"job {found.id} has no scores of {scorer!r}: it has {', '.join(found.scorers)}")
        place = None if after is None else _parse_place(after, wanted.by_score)
        rows = self._store.lists.scans(found.id, scorer, wanted, limit + 1, place)
        page = [_hidden(scan, Hiding(found.path_key)) for scan in rows[:limit]]
        return ScanPage(page, _place(page[-1], wanted.by_score) if len(rows) > limit else None)

    def workers(self) -> list[Worker]:
        """The workers of the last week."""
        return self._store.workers.all()

    def report_folder(self, job: str) -> Path:
        """Where the report of a job is on this machine, if it is here.

        Raises:
            JobNotFoundError: there is no such job.
        """
        return self._settings.local_path(self._find(job).report_folder)

    def _find(self, job: str) -> Job:
        return self._store.find_job(job)

    def _call(self, job_id: str) -> None:
        for note in call_workers(self._settings, self._store, job_id):
            self._say(note)


def _hidden(scan: ListedScan, hiding: Hiding) -> ListedScan:
    if not hiding:
        return scan
    group, volume = (
        scan.group and hiding.name(scan.group, "group"),
        scan.volume and hiding.name(scan.volume, "volume"),
    )
    return scan._replace(path=hiding.path(scan.path), group=group, volume=volume)


def all_scans(jobs: Jobs, job: str, wanted: ScanFilter, scorer: str | None = None) -> Iterator[ListedScan]:
    """The scans of a job, page by page."""
    after: str | None = None
    while True:
        page = jobs.scans(job, wanted, SCANS_PAGE, after, scorer)
        yield from page.scans
        if page.after is None:
            return
        after = page.after


def _digest(source: str, options: JobOptions) -> str:
    """Of what is asked for."""
    return hashlib.sha256(json.dumps([source, options], sort_keys=True, default=str).encode()).hexdigest()


def _place(scan: ListedScan, by_score: bool) -> str:
    return f"{scan.id}_{scan.score!r}" if by_score else str(scan.id)


def _parse_place(text: str, by_score: bool) -> Place:
    scan, _, score = text.partition("_")
    try:
        place = Place(int(scan), float(score) if by_score else None)
        if bool(score) is by_score and 0 <= place.scan < 2**31 and abs(place.score or 0.0) < float("inf"):
            return place
    except ValueError:
        pass
    raise UsageError(f"{text!r} is not where a page of this list ends: take it from the page before")
