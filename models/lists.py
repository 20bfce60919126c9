"""What others look at: jobs and scans in pages, how far jobs are, and sums over all of them."""

from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Float, Select, and_, cast, func, or_, select
from sqlalchemy.orm import Session

from .database import Database
from .encoders import EncoderSpec
from .errors import JobNotFoundError
from .records import Job, JobFilter, Listed, ListedScan, Place, Progress, ScanFilter, Totals
from .states import BatchState, FailureKind, JobState, Label, Priority, ScanState
from .tables import BatchRow, JobRow, ScanRow, ScoreRow

_Query: TypeAlias = Select[*tuple[Any, ...]]

BATCH_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The upper ends of the classes into which `Totals` sorts batches by how long they took."""

_COUNTED = (BatchRow.embedded, BatchRow.failed, BatchRow.skipped, BatchRow.encoded)
_EMBEDDED, _FAILED, _SKIPPED, _ENCODED = [func.coalesce(func.sum(column), 0) for column in _COUNTED]


class Lists:
    """The lists of a store. Every method raises StoreUnreachableError when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def jobs(
        self, wanted: JobFilter | None = None, limit: int | None = None, after: str | None = None
    ) -> list[Job]:
        """Jobs, newest first.

        Args:
            wanted: which; None for all.
            limit: how many at most.
            after: begin behind the job with this id.

        Raises:
            JobNotFoundError: there is no job `after`.
        """
        wanted = wanted or JobFilter()
        query = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id).limit(limit)
        if wanted.states:
            query = query.where(JobRow.state.in_(wanted.states))
        if wanted.source is not None:
            query = query.where(JobRow.source.contains(wanted.source, autoescape=True))
        with self._database.read() as session:
            if after is not None:
                last = session.get(JobRow, after)
                if last is None:
                    raise JobNotFoundError(f"there is no job {after!r} to go on behind: begin with the first page")
                same = and_(JobRow.created_at == last.created_at, JobRow.id > last.id)
                query = query.where(or_(JobRow.created_at < last.created_at, same))
            return [to_job(row) for row in session.scalars(query)]

    def progress(self, job_ids: Collection[str]) -> dict[str, Progress]:
        """How far jobs are, by id. Costs by the number of their batches, not of their scans."""
        by_state = [func.count().filter(BatchRow.state == state) for state in (BatchState.RUNNING, BatchState.DONE)]
        times = [func.min(BatchRow.started_at), func.max(BatchRow.finished_at)]
        sums = [_EMBEDDED, _FAILED, _SKIPPED, _ENCODED]
        query: _Query = select(BatchRow.job_id, func.count(), *by_state, *sums, *times).group_by(BatchRow.job_id)
        with self._database.read() as session:
            rows = session.execute(query.where(BatchRow.job_id.in_(job_ids)))
            found = {job_id: Progress(*values) for job_id, *values in rows}
        return {job_id: found.get(job_id, _NO_BATCHES) for job_id in job_ids}

    def scans(
        self,
        job_id: str,
        scorer: str,
        wanted: ScanFilter | None = None,
        limit: int = 100,
        after: Place | None = None,
    ) -> list[ListedScan]:
        """Scans of a job, in order of submission, or by score with the most anomalous first.

        Args:
            job_id: the job.
            scorer: whose scores come with them.
            wanted: which, and in what order; None for all, in order of submission.
            limit: how many at most.
            after: the place of the scan to begin behind.
        """
        wanted = wanted or ScanFilter()
        conditions = [ScanRow.job_id == job_id, *_conditions(wanted)]
        if wanted.needs_scores:
            ids = self._scored(conditions, scorer, wanted, after)
        else:
            ids = select(ScanRow.id).where(*conditions, ScanRow.id > (after.scan if after else 0))
            ids = ids.order_by(ScanRow.id)
        # The page's scans first, and then what is known of them: or PostgreSQL may join all scans of the job.
        page = ids.limit(limit).subquery()
        columns = (ScanRow.id, ScanRow.path, ScanRow.label, ScanRow.group_name, ScanRow.volume_name, ScanRow.state)
        reasons = (ScanRow.failure_kind, ScanRow.failure_detail)
        scores = (ScoreRow.score, ScoreRow.score_in_sample)
        query: _Query = (
            select(*columns, *reasons, *scores)
            .join(page, page.c.id == ScanRow.id)
            .outerjoin(ScoreRow, and_(ScoreRow.scan_id == ScanRow.id, ScoreRow.scorer == scorer))
        )
        order = [ScoreRow.score.desc(), ScanRow.id] if wanted.by_score else [ScanRow.id]
        with self._database.read() as session:
            return [_listed(*row) for row in session.execute(query.order_by(*order))]

    def _scored(
        self, conditions: Sequence[ColumnElement[bool]], scorer: str, wanted: ScanFilter, after: Place | None
    ) -> _Query:
        score = ScoreRow.score
        query: _Query = (
            select(ScanRow.id)
            .join(ScoreRow, and_(ScoreRow.scan_id == ScanRow.id, ScoreRow.scorer == scorer))
            .where(*conditions, ScanRow.state == ScanState.EMBEDDED)
        )
        if wanted.least_score is not None:
            query = query.where(score >= wanted.least_score)
        if wanted.greatest_score is not None:
            query = query.where(score <= wanted.greatest_score)
        if not wanted.by_score:
            return query.where(ScanRow.id > (after.scan if after else 0)).order_by(ScanRow.id)
        if after is not None:
            query = query.where(or_(score < after.score, and_(score == after.score, ScanRow.id > after.scan)))
        return query.order_by(score.desc(), ScanRow.id)

    def failures(self, job_id: str | None = None) -> dict[FailureKind, int]:
        """How many scans failed so far, by kind: of one job, or of all."""
        query = select(ScanRow.failure_kind, func.count()).where(ScanRow.failure_kind.is_not(None))
        if job_id is not None:
            query = query.where(ScanRow.job_id == job_id)
        with self._database.read() as session:
            rows = session.execute(query.group_by(ScanRow.failure_kind))
            return {FailureKind(kind): count for kind, count in rows if kind is not None}

    def endings(self) -> dict[str, Listed]:
        """The states of all jobs, and when they ended, by id."""
        with self._database.read() as session:
            rows = session.execute(select(JobRow.id, JobRow.state, JobRow.finished_at))
            return {job_id: Listed(JobState(state), finished_at) for job_id, state, finished_at in rows}

    def totals(self, job_ids: Collection[str]) -> Totals:
        """Sums over the batches of some jobs. Costs by the number of these."""
        done = BatchRow.state == BatchState.DONE
        with self._database.read() as session:
            seconds = self._seconds(session)
            classes = [func.count().filter(done, seconds <= end) for end in BATCH_SECONDS]
            taken = func.coalesce(func.sum(seconds).filter(done), 0.0)
            query: _Query = select(_EMBEDDED, _FAILED, _ENCODED, func.count().filter(done), taken, *classes).where(
                BatchRow.job_id.in_(job_ids)
            )
            embedded, failed, encoded, batches, total_seconds, *counts = session.execute(query).one()
        return Totals(embedded, failed, encoded, batches, float(total_seconds), tuple(counts))

    def _seconds(self, session: Session) -> ColumnElement[float]:
        """How long a batch took from when it was first begun to its commit."""
        if self._database.dialect == "postgresql":
            return cast(func.extract("epoch", BatchRow.finished_at - BatchRow.started_at), Float)
        days = func.julianday(BatchRow.finished_at) - func.julianday(BatchRow.started_at)
        return cast(days * 86400.0, Float)


def _conditions(wanted: ScanFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.state is not None:
        conditions.append(ScanRow.state == wanted.state)
    if wanted.unlabelled:
        conditions.append(ScanRow.label.is_(None))
    elif wanted.label is not None:
        conditions.append(ScanRow.label == wanted.label)
    if wanted.state == ScanState.FAILED:
        # Always so, and the index of the scans that failed says it too.
        conditions.append(ScanRow.failure_kind.is_not(None))
    if wanted.failure is not None:
        conditions.append(ScanRow.failure_kind == wanted.failure)
    return conditions


def _listed(
    scan_id: int,
    path: str,
    label: str | None,
    group: str | None,
    volume: str | None,
    state: str,
    kind: str | None,
    detail: str | None,
    score: float | None,
    in_sample: float | None,
) -> ListedScan:
    embedded = state == ScanState.EMBEDDED  # one that failed in a later run keeps its score of the earlier one
    return ListedScan(
        scan_id,
        path,
        None if label is None else Label(label),
        group,
        volume,
        ScanState(state),
        None if kind is None else FailureKind(kind),
        detail,
        score if embedded else None,
        in_sample if embedded else None,
    )


_NO_BATCHES = Progress(0, 0, 0, 0, 0, 0, 0, None, None)


def to_job(row: JobRow) -> Job:
    """The record of a row."""
    return Job(
        id=row.id,
        state=JobState(row.state),
        source=row.source,
        root=row.root,
        report_folder=row.report_folder,
        encoder=EncoderSpec(**row.encoder),
        priority=Priority(row.priority),
        follow_links=row.follow_links,
        intensity=row.intensity,
        path_key=row.path_key,
        false_alarm_rate=row.false_alarm_rate,
        scorers=tuple(row.scorers),
        options=row.options,
        notes=row.notes,
        scans=row.scans,
        normal=row.normal,
        anomaly=row.anomaly,
        ignored=row.ignored,
        stage=row.stage,
        whole=row.submitter_beat_at is None,
        created_at=row.created_at,
        finished_at=row.finished_at,
        error=row.error,
        result=row.result,
    )
