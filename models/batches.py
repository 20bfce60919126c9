"""The life of a batch: pending, queued, running, done.

A call in Redis only says that a batch waits. Who holds a batch is written here, before the work starts, so that a
second call for it does nothing, and the death of its worker is counted.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from .contents import add_contents
from .database import Database, changed_rows
from .encoders import EncoderSpec
from .files import remember
from .records import Batch, BatchScan, Call, FileState, NewContent, ScanResult, WaitingBatch
from .states import BatchState, JobState, Priority, ScanState
from .tables import BatchRow, JobRow, ScanRow
from .workers import alive_names, window

_ON_ITS_WAY = (BatchState.QUEUED, BatchState.RUNNING)


class Batches:
    """The batches of a store. Every method raises StoreUnreachableError when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def next_calls(self, job_id: str) -> list[Call]:
        """Mark as queued as many pending batches of a job as its window has room for. The caller sends the calls.

        A caller that dies before it has sent them leaves them to `missed_calls`.
        """
        with self._database.write() as session:
            job = session.get(JobRow, job_id)
            if job is None or job.state != JobState.EMBEDDING:
                return []
            of_job = BatchRow.job_id == job_id
            busy = session.scalar(select(func.count()).where(of_job, BatchRow.state.in_(_ON_ITS_WAY))) or 0
            pending = select(BatchRow.id).where(of_job, BatchRow.state == BatchState.PENDING).order_by(BatchRow.id)
            room = max(0, window(self._database, session) - busy)
            ids = session.scalars(pending.limit(room).with_for_update(skip_locked=True)).all()
            if ids:
                now = self._database.now(session)
                session.execute(
                    update(BatchRow).where(BatchRow.id.in_(ids)).values(state=BatchState.QUEUED, queued_at=now)
                )
            return [Call(batch_id, Priority(job.priority)) for batch_id in ids]

    def missed_calls(self, alive: Collection[int], older_than: float) -> list[Call]:
        """The batches whose call was sent and is nowhere any more. They count as called anew: the caller does it.

        Args:
            alive: the batches whose calls Redis still has.
            older_than: seconds since the call; a younger one may be on its way.
        """
        with self._database.write() as session:
            now = self._database.now(session)
            query = (
                select(BatchRow.id, JobRow.priority)
                .join(JobRow)
                .where(
                    BatchRow.state == BatchState.QUEUED,
                    BatchRow.queued_at < now - timedelta(seconds=older_than),
                    JobRow.state == JobState.EMBEDDING,
                )
            )
            calls = [
                Call(batch_id, Priority(priority))
                for batch_id, priority in session.execute(query.order_by(BatchRow.id))
                if batch_id not in alive
            ]
            ids = [call.batch_id for call in calls]
            session.execute(
                update(BatchRow)
                .where(BatchRow.id.in_(ids), BatchRow.state == BatchState.QUEUED)
                .values(queued_at=now)
            )
            return calls

    def open_jobs(self) -> tuple[list[str], list[str]]:
        """The jobs being embedded that have pending batches, and the whole ones that have no batch left to do."""
        pending = func.count().filter(BatchRow.state == BatchState.PENDING)
        unfinished = func.count().filter(BatchRow.state != BatchState.DONE)
        query = (
            select(JobRow.id, pending, unfinished, JobRow.submitter_beat_at.is_(None))
            .join(BatchRow, BatchRow.job_id == JobRow.id)
            .where(JobRow.state == JobState.EMBEDDING)
            .group_by(JobRow.id)
            .order_by(JobRow.created_at, JobRow.id)
        )
        with self._database.read() as session:
            rows = session.execute(query).all()
        waiting = [job for job, count, _, _ in rows if count]
        return waiting, [job for job, _, left, whole in rows if whole and not left]

    def waiting(self, batch_id: int) -> WaitingBatch | None:
        """What is to be known of a batch before it is begun; None when there is nothing to begin."""
        query = (
            select(JobRow.encoder, BatchRow.state, BatchRow.deaths)
            .join(JobRow)
            .where(BatchRow.id == batch_id, BatchRow.state != BatchState.DONE, JobRow.state == JobState.EMBEDDING)
        )
        with self._database.read() as session:
            row = session.execute(query).one_or_none()
        if row is None:
            return None
        encoder, state, deaths = row
        # A running one can be taken only from a worker that died, which `begin` counts.
        return WaitingBatch(EncoderSpec(**encoder), deaths + (state == BatchState.RUNNING))

    def begin(self, batch_id: int, worker: str) -> Batch | None:
        """Take a batch, and return its work.

        A batch that is running in the name of a worker that died is taken over, and the death is counted.

        Args:
            batch_id: the batch.
            worker: the name of the worker that will hold it.

        Returns:
            None when there is nothing to do: the batch is done or another living worker has it, or its job is not
            being embedded now.
        """
        with self._database.write() as session:
            row = session.get(BatchRow, batch_id, with_for_update=True)
            if row is None or row.state == BatchState.DONE:
                return None
            job = session.get_one(JobRow, row.job_id)
            if job.state != JobState.EMBEDDING:
                return None
            if row.state == BatchState.RUNNING and row.worker != worker:
                if row.worker in alive_names(self._database, session):
                    return None
                row.deaths += 1
            row.state = BatchState.RUNNING
            row.worker = worker
            row.started_at = row.started_at or datetime.now(UTC)
            query = select(ScanRow.id, ScanRow.path).where(
                ScanRow.batch_id == batch_id, ScanRow.state == ScanState.PENDING
            )
            scans = tuple(BatchScan(*scan) for scan in session.execute(query.order_by(ScanRow.id)))
            encoder = EncoderSpec(**job.encoder)
            how = (job.root, job.follow_links, job.rehash, job.intensity, encoder)
            return Batch(batch_id, job.id, *how, row.deaths, scans)

    def split(self, batch: Batch) -> None:
        """Put two halves in the place of a batch. Each carries one death: the next one splits it again."""
        middle = batch.scans[len(batch.scans) // 2].id
        with self._database.write() as session:
            row = session.get(BatchRow, batch.id, with_for_update=True)
            if row is None or row.state == BatchState.DONE:
                return
            of_batch = ScanRow.batch_id == batch.id
            for half in (of_batch & (ScanRow.id < middle), of_batch & (ScanRow.id >= middle)):
                count = session.scalar(select(func.count()).select_from(ScanRow).where(half)) or 0
                new = add_batch(session, row.job_id, count, deaths=1, started_at=row.started_at)
                session.execute(update(ScanRow).where(half).values(batch_id=new))
            session.execute(delete(BatchRow).where(BatchRow.id == batch.id))

    def finish(
        self,
        batch: Batch,
        results: Sequence[ScanResult],
        new: Mapping[str, NewContent],
        files: Mapping[str, FileState] | None = None,
        encoded: int | None = None,
    ) -> None:
        """Write what became of a batch, in one transaction.

        A batch that is done already, or was split, is left as it is. One that was given to another worker in the
        meantime is done all the same: what both would write is equal.

        Args:
            batch: what `begin` returned.
            results: one for each of its scans.
            new: contents by digest.
            files: by path, what the files held that were read.
            encoded: how many scans went through the encoder; None for as many as there are new contents.
        """
        failed = sum(result.failure is not None for result in results)
        skipped = sum(result.skipped for result in results)
        done = (
            update(BatchRow)
            .where(BatchRow.id == batch.id, BatchRow.state != BatchState.DONE)
            .values(
                state=BatchState.DONE,
                embedded=len(results) - failed - skipped,
                failed=failed,
                skipped=skipped,
                encoded=len(new) if encoded is None else encoded,
                finished_at=datetime.now(UTC),
            )
        )
        with self._database.write() as session:
            if changed_rows(session, done) == 0:
                return
            add_contents(session, batch.encoder, new)
            remember(session, batch.root, batch.intensity, files or {})
            if results:
                session.execute(update(ScanRow), [_scan_values(result) for result in results])

    def job_of(self, batch_id: int) -> str | None:
        """The id of a batch's job; None when there is no such batch."""
        with self._database.read() as session:
            return session.scalar(select(BatchRow.job_id).where(BatchRow.id == batch_id))

    def unfinished(self, job_id: str) -> list[int]:
        """The ids of a job's batches that are not done."""
        query = select(BatchRow.id).where(BatchRow.job_id == job_id, BatchRow.state != BatchState.DONE)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(BatchRow.id)))


def add_batch(
    session: Session, job_id: str, scans: int, deaths: int = 0, started_at: datetime | None = None
) -> int:
    """Insert a pending batch and return its id."""
    return add_batches(session, job_id, [scans], deaths, started_at)[0]


def add_batches(
    session: Session, job_id: str, sizes: Sequence[int], deaths: int = 0, started_at: datetime | None = None
) -> list[int]:
    """Insert pending batches of so many scans. Returns their ids, which ascend."""
    if not sizes:
        return []
    values = {"job_id": job_id, "state": BatchState.PENDING, "deaths": deaths, "started_at": started_at}
    values |= {"embedded": 0, "failed": 0, "skipped": 0, "encoded": 0}
    statement = insert(BatchRow).returning(BatchRow.id, sort_by_parameter_order=True)
    return list(session.scalars(statement, [values | {"scans": size} for size in sizes]))


def call_off(session: Session, job_id: str) -> None:
    """Forget the calls that were sent for a job: whoever gets one will do nothing."""
    session.execute(
        update(BatchRow)
        .where(BatchRow.job_id == job_id, BatchRow.state == BatchState.QUEUED)
        .values(state=BatchState.PENDING, queued_at=None)
    )


def _scan_values(result: ScanResult) -> dict[str, Any]:
    return {
        "id": result.scan_id,
        "state": _state(result),
        "sha256": result.sha256,
        "failure_kind": result.failure,
        "failure_detail": result.detail,
    }


def _state(result: ScanResult) -> ScanState:
    if result.failure is not None:
        return ScanState.FAILED
    return ScanState.SKIPPED if result.skipped else ScanState.EMBEDDED
