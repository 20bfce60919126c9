"""The store: the only place that opens a session, and every query of the program.

The store is the truth. A message in Redis only says that there is something to do; whether it still is, and
what exactly, is read here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import CursorResult, Select, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from .database import Database
from .encoders import EncoderSpec
from .errors import JobNotFoundError, JobStateError
from .records import (
    Batch,
    BatchScan,
    Failure,
    FoundScan,
    IgnoredFile,
    Job,
    NewJob,
    Progress,
    RankedScan,
    ScanResult,
    ScanScore,
    StoredVector,
)
from .settings import Settings
from .states import JOB_TRANSITIONS, BatchState, FailureKind, JobState, Label, ScanState
from .tables import BatchRow, EmbeddingRow, IgnoredRow, JobRow, ScanRow

_PAGE = 2000
"""Rows read or written in one statement."""

_T = TypeVar("_T")
_Query: TypeAlias = Select[*tuple[Any, ...]]


class Store:
    """Jobs, batches, scans and embeddings. Safe to use from several threads and processes.

    Every method raises StoreUnreachableError when the database cannot be used.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)

    @classmethod
    def open(cls, settings: Settings) -> "Store":
        return cls(settings.resolved_store_url)

    @property
    def name(self) -> str:
        """The store's URL without its password."""
        return self._database.name

    def close(self) -> None:
        self._database.close()

    # --- the producer's side -------------------------------------------------------------------------------

    def add_job(self, job: NewJob, scans: Sequence[FoundScan], ignored: Sequence[IgnoredFile] = ()) -> None:
        """Write a job with its scans, cut into batches of `job.batch_size`, in one transaction."""
        labels = [scan.label for scan in scans]
        with self._database.write() as session:
            session.add(
                JobRow(
                    id=job.id,
                    state=JobState.EMBEDDING,
                    source=job.source,
                    root=job.root,
                    report_folder=job.report_folder,
                    encoder=asdict(job.encoder),
                    encoder_key=job.encoder.key,
                    notes=dict(job.notes),
                    scans=len(scans),
                    normal=labels.count(Label.NORMAL),
                    anomaly=labels.count(Label.ANOMALY),
                    ignored=len(ignored),
                    created_at=datetime.now(UTC),
                )
            )
            session.flush()
            for group in _groups(scans, job.batch_size):
                batch_id = _add_batch(session, job.id, len(group))
                rows = [
                    {"job_id": job.id, "batch_id": batch_id, "path": scan.path, "label": scan.label}
                    | {"state": ScanState.PENDING}
                    for scan in group
                ]
                session.execute(insert(ScanRow), rows)
            for page in _groups(ignored, _PAGE):
                session.execute(insert(IgnoredRow), [{"job_id": job.id} | asdict(file) for file in page])

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
            return _job(row)

    def jobs(self, limit: int | None = None) -> list[Job]:
        """The jobs, newest first."""
        with self._database.read() as session:
            query = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id).limit(limit)
            return [_job(row) for row in session.scalars(query)]

    def unfinished_jobs(self) -> list[str]:
        """The ids of the jobs that still need a worker, oldest first."""
        query = select(JobRow.id).where(JobRow.state.in_([JobState.EMBEDDING, JobState.SCORING]))
        with self._database.read() as session:
            return list(session.scalars(query.order_by(JobRow.created_at, JobRow.id)))

    def progress(self, job_id: str) -> Progress:
        """How far a job is. Costs by the number of its batches, not of its scans."""
        by_state = [func.count().filter(BatchRow.state == state) for state in (BatchState.RUNNING, BatchState.DONE)]
        sums = [
            func.coalesce(func.sum(column), 0) for column in (BatchRow.embedded, BatchRow.failed, BatchRow.encoded)
        ]
        times = [func.min(BatchRow.started_at), func.max(BatchRow.finished_at)]
        query: _Query = select(func.count(), *by_state, *sums, *times).where(BatchRow.job_id == job_id)
        with self._database.read() as session:
            return Progress(*session.execute(query).one())

    def unfinished_batches(self, job_id: str) -> list[int]:
        """The ids of a job's batches that are not done."""
        query = select(BatchRow.id).where(BatchRow.job_id == job_id, BatchRow.state != BatchState.DONE)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(BatchRow.id)))

    def cancel(self, job_id: str) -> None:
        """Stop a job that has not ended. A batch that is running now is finished.

        Raises:
            JobStateError: the job has ended.
        """
        with self._database.write() as session:
            row = _locked(session, job_id)
            if JobState.CANCELLED not in JOB_TRANSITIONS[JobState(row.state)]:
                raise JobStateError(f"job {job_id} is {row.state} already: there is nothing to cancel")
            row.state = JobState.CANCELLED
            row.finished_at = datetime.now(UTC)

    def reopen(self, job_id: str, batch_size: int) -> int:
        """Put a job that ended back to work: its failed scans become pending again, in new batches.

        Returns:
            How many scans that is. 0 where the job failed before or after its scans were embedded.

        Raises:
            JobStateError: the job is not done or failed, or nothing in it failed.
        """
        with self._database.write() as session:
            row = _locked(session, job_id)
            if JobState.EMBEDDING not in JOB_TRANSITIONS[JobState(row.state)]:
                hint = "cancelled for good: submit it again" if row.state == JobState.CANCELLED else "still running"
                raise JobStateError(f"job {job_id} is {hint}")
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
                .values(scans=BatchRow.scans - BatchRow.failed, failed=0, attempts=0)
            )
            for group in _groups(failed, batch_size):
                _requeue(session, _add_batch(session, job_id, len(group)), group)
            row.state = JobState.EMBEDDING
            row.error = row.finished_at = row.result = None
            return len(failed)

    # --- the worker's side ---------------------------------------------------------------------------------

    def begin_batch(self, batch_id: int) -> Batch | None:
        """Count an attempt at a batch, and return its work.

        Returns:
            None when there is nothing to do: the batch is done, or its job is not being embedded any more.
        """
        with self._database.write() as session:
            row = session.get(BatchRow, batch_id, with_for_update=True)
            if row is None or row.state == BatchState.DONE:
                return None
            job = session.get_one(JobRow, row.job_id)
            if job.state != JobState.EMBEDDING:
                return None
            row.state = BatchState.RUNNING
            row.attempts += 1
            row.started_at = row.started_at or datetime.now(UTC)
            query = select(ScanRow.id, ScanRow.path).where(
                ScanRow.batch_id == batch_id, ScanRow.state == ScanState.PENDING
            )
            scans = tuple(BatchScan(*scan) for scan in session.execute(query.order_by(ScanRow.id)))
            return Batch(batch_id, job.id, job.root, EncoderSpec(**job.encoder), row.attempts, scans)

    def job_of_batch(self, batch_id: int) -> str | None:
        """The id of a batch's job; None when there is no such batch."""
        with self._database.read() as session:
            return session.scalar(select(BatchRow.job_id).where(BatchRow.id == batch_id))

    def has_embedding(self, sha256: str, encoder_key: str) -> bool:
        query = select(EmbeddingRow.sha256).where(
            EmbeddingRow.sha256 == sha256, EmbeddingRow.encoder_key == encoder_key
        )
        with self._database.read() as session:
            return session.scalar(query) is not None

    def finish_batch(self, batch: Batch, results: Sequence[ScanResult], vectors: Mapping[str, bytes]) -> None:
        """Write what became of a batch, in one transaction. A batch that is done already is left as it is.

        Args:
            batch: what `begin_batch` returned.
            results: one for each of its scans.
            vectors: new embeddings by digest; float32 bytes, little-endian, L2-normalised.
        """
        failed = sum(result.failure is not None for result in results)
        with self._database.write() as session:
            done = session.execute(
                update(BatchRow)
                .where(BatchRow.id == batch.id, BatchRow.state != BatchState.DONE)
                .values(
                    state=BatchState.DONE,
                    embedded=len(results) - failed,
                    failed=failed,
                    encoded=len(vectors),
                    finished_at=datetime.now(UTC),
                )
            )
            if _rowcount(done) == 0:
                return  # delivered twice, and the other worker was faster
            self._add_embeddings(session, batch.encoder.key, vectors)
            if results:
                session.execute(update(ScanRow), [_scan_values(result) for result in results])

    def _add_embeddings(self, session: Session, encoder_key: str, vectors: Mapping[str, bytes]) -> None:
        # Sorted, so that two workers with the same content take PostgreSQL's row locks in one order.
        rows = [
            {"sha256": sha256, "encoder_key": encoder_key, "vector": vectors[sha256]} for sha256 in sorted(vectors)
        ]
        upsert = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        if rows:
            session.execute(upsert(EmbeddingRow).on_conflict_do_nothing(), rows)

    def begin_scoring(self, job_id: str) -> bool:
        """Move a job on when its last batch is done.

        Call it after the batch's commit: inside that transaction, two workers with the last two batches would
        each see the other's as unfinished.

        Returns:
            True for exactly one of all callers: the one that has to send the aggregate message.
        """
        unfinished = select(BatchRow.id).where(BatchRow.job_id == job_id, BatchRow.state != BatchState.DONE)
        statement = (
            update(JobRow)
            .where(JobRow.id == job_id, JobRow.state == JobState.EMBEDDING, ~unfinished.exists())
            .values(state=JobState.SCORING)
        )
        with self._database.write() as session:
            return _rowcount(session.execute(statement)) == 1

    def vectors(self, job_id: str, label: Label | None = None) -> Iterator[list[StoredVector]]:
        """The embedded scans of a job with their vectors, in pages of bounded size, in order of submission.

        Args:
            job_id: the job.
            label: only the scans with this label; None for all.
        """
        query: _Query = (
            select(ScanRow.id, ScanRow.label, ScanRow.sha256, EmbeddingRow.vector)
            .join(JobRow, JobRow.id == ScanRow.job_id)
            .join(
                EmbeddingRow,
                (EmbeddingRow.sha256 == ScanRow.sha256) & (EmbeddingRow.encoder_key == JobRow.encoder_key),
            )
            .where(ScanRow.job_id == job_id, ScanRow.state == ScanState.EMBEDDED)
        )
        if label is not None:
            query = query.where(ScanRow.label == label)
        for page in self._pages(query):
            yield [StoredVector(row[0], _label(row[1]), row[2], row[3]) for row in page]

    def _pages(self, query: _Query) -> Iterator[Sequence[Any]]:
        """Pages by the scans' ids, each in its own short transaction, so that a long read blocks nobody."""
        last = 0
        while True:
            with self._database.read() as session:
                page = session.execute(query.where(ScanRow.id > last).order_by(ScanRow.id).limit(_PAGE)).all()
            if not page:
                return
            yield page
            last = page[-1][0]

    def save_scores(self, scores: Iterable[ScanScore]) -> None:
        """Write scores; those from an earlier scoring are replaced."""
        for page in _groups(scores, _PAGE):
            rows = [
                {"id": score.scan_id, "score": score.score, "score_in_sample": score.score_in_sample}
                for score in page
            ]
            with self._database.write() as session:
                session.execute(update(ScanRow), rows)

    def finish_job(self, job_id: str, result: Mapping[str, Any]) -> bool:
        """Mark a job as done. False when it was not being scored any more."""
        return self._end(job_id, (JobState.SCORING,), state=JobState.DONE, result=dict(result))

    def fail_job(self, job_id: str, message: str) -> bool:
        """End a job with an error that a person will read. False when it had ended already."""
        running = (JobState.EMBEDDING, JobState.SCORING)
        return self._end(job_id, running, state=JobState.FAILED, error=message)

    def _end(self, job_id: str, allowed: Sequence[JobState], **values: Any) -> bool:
        statement = (
            update(JobRow)
            .where(JobRow.id == job_id, JobRow.state.in_(allowed))
            .values(finished_at=datetime.now(UTC), **values)
        )
        with self._database.write() as session:
            return _rowcount(session.execute(statement)) == 1

    # --- the report's side ---------------------------------------------------------------------------------

    def ranking(self, job_id: str) -> Iterator[RankedScan]:
        """The scored scans, the most anomalous first; equal scores in order of submission."""
        query: _Query = (
            select(ScanRow.path, ScanRow.label, ScanRow.score, ScanRow.score_in_sample, ScanRow.sha256)
            .where(ScanRow.job_id == job_id, ScanRow.state == ScanState.EMBEDDED, ScanRow.score.is_not(None))
            .order_by(ScanRow.score.desc(), ScanRow.id)
        )
        with self._database.read() as session:
            for path, label, score, in_sample, sha256 in session.execute(query):
                yield RankedScan(path, _label(label), score, in_sample, sha256)

    def failures(self, job_id: str) -> list[Failure]:
        """The scans that have no embedding, in order of submission."""
        query: _Query = (
            select(ScanRow.path, ScanRow.failure_kind, ScanRow.failure_detail)
            .where(ScanRow.job_id == job_id, ScanRow.state == ScanState.FAILED)
            .order_by(ScanRow.id)
        )
        with self._database.read() as session:
            return [Failure(path, FailureKind(kind), detail) for path, kind, detail in session.execute(query)]

    def ignored(self, job_id: str) -> list[IgnoredFile]:
        """The files that were found and are not scans, in order of discovery."""
        query = (
            select(IgnoredRow.path, IgnoredRow.reason).where(IgnoredRow.job_id == job_id).order_by(IgnoredRow.id)
        )
        with self._database.read() as session:
            return [IgnoredFile(*row) for row in session.execute(query)]


def _groups(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items, the last one shorter. `itertools.batched` came with Python 3.12."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _add_batch(session: Session, job_id: str, scans: int) -> int:
    row = BatchRow(job_id=job_id, state=BatchState.PENDING, scans=scans)
    session.add(row)
    session.flush()
    return row.id


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


def _scan_values(result: ScanResult) -> dict[str, Any]:
    return {
        "id": result.scan_id,
        "state": ScanState.FAILED if result.failure else ScanState.EMBEDDED,
        "sha256": result.sha256,
        "failure_kind": result.failure,
        "failure_detail": result.detail,
    }


def _rowcount(result: Any) -> int:
    assert isinstance(result, CursorResult)
    return int(result.rowcount)


def _label(text: str | None) -> Label | None:
    return None if text is None else Label(text)


def _job(row: JobRow) -> Job:
    return Job(
        id=row.id,
        state=JobState(row.state),
        source=row.source,
        root=row.root,
        report_folder=row.report_folder,
        encoder=EncoderSpec(**row.encoder),
        notes=row.notes,
        scans=row.scans,
        normal=row.normal,
        anomaly=row.anomaly,
        ignored=row.ignored,
        created_at=row.created_at,
        finished_at=row.finished_at,
        error=row.error,
        result=row.result,
    )
