"""The store: jobs here; `lists.py`, `submissions.py`, `batches.py`, `contents.py`, `files.py`, `scores.py` and
`workers.py` have the rest.

No query is anywhere else.

The store is the truth. A message in Redis only says that there is something to do; whether it still is, and
what exactly, is read here.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import URL, ColumnElement, select, update
from sqlalchemy.orm import Session

from .batches import Batches, add_batch, call_off
from .contents import Contents
from .database import Database, changed_rows
from .errors import JobNotFoundError, JobStateError
from .files import Files
from .lists import Lists, to_job
from .records import Job, Progress
from .scores import Scores
from .settings import Settings
from .states import JOB_TRANSITIONS, BatchState, JobState, ScanState
from .submissions import Submissions
from .tables import BatchRow, JobRow, ScanRow
from .workers import Workers, alive_names

_T = TypeVar("_T")


class Store:
    """Jobs; `lists`, `submissions`, `batches`, `contents`, `files`, `scores` and `workers`.

    For several threads and processes. Every method raises StoreUnreachableError when the database cannot be used,
    and StoreRefusedError when it does not let this user do that.
    """

    def __init__(self, url: str | URL, upgrade: bool = False, read_only: bool = False) -> None:
        """Open a store: see `Database`."""
        self._database = Database(url, upgrade, read_only)
        self.lists = Lists(self._database)
        self.submissions = Submissions(self._database)
        self.batches = Batches(self._database)
        self.contents = Contents(self._database)
        self.files = Files(self._database)
        self.scores = Scores(self._database)
        self.workers = Workers(self._database)

    @classmethod
    def open(cls, settings: Settings, upgrade: bool = False, read_only: bool = False) -> "Store":
        return cls(settings.resolved_store_url, upgrade, read_only)

    @property
    def name(self) -> str:
        """The store's URL without its password."""
        return self._database.name

    @property
    def schema_before(self) -> str | None:
        """The schema's version when the store was opened; None for a new store."""
        return self._database.schema_before

    def close(self) -> None:
        self._database.close()

    # --- the producer's side -------------------------------------------------------------------------------

    def find_job(self, prefix: str) -> Job:
        """The job whose id is `prefix`, or begins with it.

        Raises:
            JobNotFoundError: there is none, or several begin like that.
        """
        with self._database.read() as session:
            row = session.get(JobRow, prefix)
            if row is None:
                query = select(JobRow).where(JobRow.id.startswith(prefix, autoescape=True)).limit(2)
                rows = session.scalars(query).all() if prefix else []
                if len(rows) > 1:
                    raise JobNotFoundError(f"several jobs begin with {prefix!r}: give more of the id")
                if not rows:
                    raise JobNotFoundError(f"there is no job {prefix!r}: `scanomaly jobs` lists them")
                row = rows[0]
            return to_job(row)

    def progress(self, job_id: str) -> Progress:
        """How far a job is. Costs by the number of its batches, not of its scans."""
        return self.lists.progress([job_id])[job_id]

    def cancel(self, job_id: str) -> None:
        """Stop a job that has not ended. A batch that is running now is finished.

        Raises:
            JobStateError: the job has ended.
        """
        with self._database.write() as session:
            row = _locked(session, job_id)
            _change(row, JobState.CANCELLED, "there is nothing to cancel")
            row.finished_at = datetime.now(UTC)

    def pause(self, job_id: str) -> None:
        """Let no more batches of a job begin. A batch that is running now is finished.

        Raises:
            JobStateError: the job is not being embedded.
        """
        with self._database.write() as session:
            _change(_locked(session, job_id), JobState.PAUSED, "only a job that is being embedded can be paused")
            call_off(session, job_id)

    def unpause(self, job_id: str) -> bool:
        """Take a paused job up again. False when it was not paused."""
        with self._database.write() as session:
            row = _locked(session, job_id)
            if row.state != JobState.PAUSED:
                return False
            row.state = JobState.EMBEDDING
            return True

    def reopen(self, job_id: str, batch_size: int) -> int:
        """Put a job that ended back to work: its failed scans become pending again, in new batches.

        Returns:
            How many scans that is. 0 where the job failed before or after its scans were embedded.

        Raises:
            JobStateError: the job is not done or failed, or nothing in it failed.
        """
        with self._database.write() as session:
            row = _locked(session, job_id)
            if row.state not in (JobState.DONE, JobState.FAILED):
                raise JobStateError(JobState(row.state).way_on(job_id))
            if row.submitter_beat_at is not None:
                raise JobStateError(f"job {job_id} was never whole: submit it again")
            failed = session.scalars(
                select(ScanRow.id)
                .where(ScanRow.job_id == job_id, ScanRow.state == ScanState.FAILED)
                .order_by(ScanRow.id)
            ).all()
            if row.state == JobState.DONE and not failed:
                raise JobStateError(f"no scan of job {job_id} failed: there is nothing to retry")
            session.execute(
                update(BatchRow)
                .where(BatchRow.job_id == job_id)
                .values(scans=BatchRow.scans - BatchRow.failed, failed=0, deaths=0)
            )
            call_off(session, job_id)
            for group in _groups(failed, batch_size):
                _requeue(session, add_batch(session, job_id, len(group)), group)
            row.state = JobState.EMBEDDING
            row.worker = row.stage = row.queued_at = row.error = row.finished_at = row.result = None
            row.deaths = 0
            return len(failed)

    def rescore(self, job_id: str, scorers: Sequence[str]) -> None:
        """Have a done job scored again by the workers, and its report written again. The caller calls them.

        Args:
            job_id: the job.
            scorers: all that it has from then on, first the one that ranks.

        Raises:
            JobStateError: the job is not done.
        """
        with self._database.write() as session:
            row = _locked(session, job_id)
            if row.state != JobState.DONE:
                raise JobStateError(f"job {job_id} is {row.state}: only a done job can be scored again")
            row.state, row.scorers = JobState.SCORING, list(scorers)
            row.worker = row.stage = row.queued_at = None
            row.deaths = 0

    # --- the worker's side ---------------------------------------------------------------------------------

    def begin_scoring(self, job_id: str) -> bool:
        """Move a job on when it is whole and its last batch is done.

        Call it after the batch's commit: inside that transaction, two workers with the last two batches would
        each see the other's as unfinished.

        Returns:
            True for exactly one of all callers: the one that has to send the aggregate message.
        """
        unfinished = select(BatchRow.id).where(BatchRow.job_id == job_id, BatchRow.state != BatchState.DONE)
        with self._database.write() as session:
            statement = (
                update(JobRow)
                .where(
                    JobRow.id == job_id,
                    JobRow.state == JobState.EMBEDDING,
                    JobRow.submitter_beat_at.is_(None),
                    ~unfinished.exists(),
                )
                .values(state=JobState.SCORING, stage=None, queued_at=self._database.now(session), worker=None)
            )
            return changed_rows(session, statement) == 1

    def missed_scorings(self, alive: Collection[str], older_than: float) -> list[Job]:
        """The jobs to be scored that nobody scores and whose call is nowhere any more. The caller calls anew.

        Args:
            alive: the jobs whose calls Redis still has.
            older_than: seconds since the call; a younger one may be on its way.
        """
        with self._database.write() as session:
            now = self._database.now(session)
            query = select(JobRow).where(JobRow.state == JobState.SCORING, JobRow.worker.is_(None))
            late = JobRow.queued_at.is_(None) | (JobRow.queued_at < now - timedelta(seconds=older_than))
            rows = [row for row in session.scalars(query.where(late)) if row.id not in alive]
            for row in rows:
                row.queued_at = now
            return [to_job(row) for row in rows]

    def begin_aggregate(self, job_id: str, worker: str, max_deaths: int) -> Job | None:
        """Take a job that is to be scored.

        One that is held in the name of a worker that died is taken over, and the death is counted; after
        `max_deaths` of them the job fails.

        Returns:
            None when there is nothing to do: the job is not to be scored, or another living worker scores it.
        """
        with self._database.write() as session:
            row = session.get(JobRow, job_id, with_for_update=True)
            if row is None or row.state != JobState.SCORING:
                return None
            if row.worker not in (None, worker):
                if row.worker in alive_names(self._database, session):
                    return None
                row.deaths += 1
            if row.deaths >= max_deaths:
                row.state, row.finished_at = JobState.FAILED, datetime.now(UTC)
                row.error = (
                    f"{row.deaths} workers died while they scored it or wrote its report: their logs may say why; "
                    "`scanomaly retry` tries again"
                )
                return None
            row.worker = worker
            return to_job(row)

    def note_stage(self, job_id: str, stage: str | None) -> None:
        """Note what is being done for a job that has not ended, for who waits for it."""
        of_job = update(JobRow).where(JobRow.id == job_id, JobRow.state.in_((JobState.EMBEDDING, JobState.SCORING)))
        with self._database.write() as session:
            session.execute(of_job.values(stage=stage))

    def add_scorers(self, job_id: str, scorers: Sequence[str], result: Mapping[str, Any]) -> bool:
        """Note that a done job has the scores of these scorers, the one that ranks first, and what its report says.

        Returns:
            False when the job is not done any more.
        """
        done = update(JobRow).where(JobRow.id == job_id, JobRow.state == JobState.DONE)
        with self._database.write() as session:
            return changed_rows(session, done.values(scorers=list(scorers), result=dict(result))) == 1

    def finish_job(self, job_id: str, result: Mapping[str, Any]) -> bool:
        """Mark a job as done. False when it was not being scored any more."""
        with self._database.write() as session:
            return _end(session, job_id, (JobState.SCORING,), state=JobState.DONE, result=dict(result))

    def fail_job(self, job_id: str, message: str, worker: str | None = None) -> bool:
        """End a job with an error that a person will read.

        Args:
            job_id: the job.
            message: the error.
            worker: who says so; a job that another worker scores by now is left alone.

        Returns:
            False when it had ended already, or is another worker's.
        """
        # Paused, too: what ran then goes on, and may fail.
        running = (JobState.EMBEDDING, JobState.PAUSED, JobState.SCORING)
        mine = JobRow.worker.is_(None) | (JobRow.worker == worker)
        with self._database.write() as session:
            if not _end(session, job_id, running, mine, state=JobState.FAILED, error=message):
                return False
            # Nobody finishes what was begun of it: held by a worker that lives, it would be kept from a retry.
            begun = update(BatchRow).where(BatchRow.job_id == job_id, BatchRow.state == BatchState.RUNNING)
            session.execute(begun.values(state=BatchState.PENDING, worker=None, queued_at=None))
            return True


def _end(
    session: Session, job_id: str, allowed: Sequence[JobState], *conditions: ColumnElement[bool], **values: Any
) -> bool:
    """Move a job to its end. False when it is in none of the states that are allowed."""
    of_job = update(JobRow).where(JobRow.id == job_id, JobRow.state.in_(allowed), *conditions)
    return changed_rows(session, of_job.values(finished_at=datetime.now(UTC), **values)) == 1


def _groups(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items, the last one shorter. `itertools.batched` came with Python 3.12."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _requeue(session: Session, batch_id: int, scan_ids: Sequence[int]) -> None:
    session.execute(
        update(ScanRow)
        .where(ScanRow.id.in_(scan_ids))
        .values(batch_id=batch_id, state=ScanState.PENDING, failure_kind=None, failure_detail=None)
    )


def _locked(session: Session, job_id: str) -> JobRow:
    row = session.get(JobRow, job_id, with_for_update=True)
    if row is None:
        raise JobNotFoundError(f"there is no job {job_id!r}: `scanomaly jobs` lists them")
    return row


def _change(row: JobRow, state: JobState, hint: str) -> None:
    if state not in JOB_TRANSITIONS[JobState(row.state)]:
        raise JobStateError(f"job {row.id} is {row.state} already: {hint}")
    row.state = state
