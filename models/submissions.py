"""How a job gets into the store: in parts, when it is large, while its first batches are embedded already.

A job that is not whole yet is never scored. Its submitter shows that it lives by a beat; when that stops, the job
fails, and has to be submitted again.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from .batches import add_batches
from .database import Database, changed_rows, upsert
from .errors import AlreadySubmittedError
from .records import FoundScan, IgnoredFile, NewJob, SubmissionKey
from .states import JobState, Label, ScanState
from .tables import IgnoredRow, JobRow, SubmissionKeyRow

ABANDONED_SECONDS = 60.0
"""A job whose submitter did not beat for so long never gets whole."""

_MOST_TOGETHER = 512
_LOST = "whoever submitted it stopped before it was whole"
_AGAIN = "submit it again: what is embedded is not embedded twice"


class Submissions:
    """Jobs on their way in. Every method raises StoreUnreachableError when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        job: NewJob,
        scans: Sequence[FoundScan],
        ignored: Sequence[IgnoredFile] = (),
        *,
        after: int = 0,
        whole: bool = True,
    ) -> bool:
        """Write a part of a job, cut into batches, in one transaction. The first part makes it.

        A part that is there already is not written again, so whoever got no answer may ask again.

        Args:
            job: the job.
            scans: the scans of this part, in order of submission.
            ignored: the files of this part that are no scans.
            after: how many files, scans or not, came with the parts before.
            whole: whether this is the last part.

        Returns:
            False when the job has ended: it was cancelled or failed, and takes no more.

        Raises:
            AlreadySubmittedError: there is another job with the key of this one.
        """
        with self._database.write() as session:
            row = session.get(JobRow, job.id, with_for_update=True)
            if row is None:
                row = _new_row(job)
                session.add(row)
                if job.key is not None:
                    session.flush()
                    _take_key(session, job.key, job.id)
            elif row.scans + row.ignored > after:
                return True
            elif JobState(row.state).ended:
                return False
            _count(row, scans, ignored)
            row.submitter_beat_at = None if whole else self._database.now(session)
            session.flush()
            self._add_scans(session, job, scans)
            if ignored:
                session.execute(insert(IgnoredRow), [{"job_id": job.id} | asdict(file) for file in ignored])
            return True

    def _add_scans(self, session: Session, job: NewJob, scans: Sequence[FoundScan]) -> None:
        sizes, pending = batch_sizes(scans, job.batch_size), ScanState.PENDING.value
        numbers = add_batches(session, job.id, sizes)
        ids = chain.from_iterable(map(repeat, numbers, sizes))
        rows = (
            (job.id, batch_id, path, label and str(label), group, volume, pending)
            for batch_id, (path, label, group, volume) in zip(ids, scans, strict=True)
        )
        columns = ("job_id", "batch_id", "path", "label", "group_name", "volume_name", "state")
        self._database.insert_many(session, "scans", columns, rows)

    def of_key(self, key: str) -> tuple[str, str] | None:
        """The job that was submitted with a key, and the digest of what was asked for; None where none was."""
        with self._database.read() as session:
            row = session.get(SubmissionKeyRow, key)
            return None if row is None else (row.job_id, row.digest)

    def beat(self, job_id: str) -> None:
        """Say that the submitter of a job lives. Does nothing where there is no job, or it is whole."""
        with self._database.write() as session:
            statement = update(JobRow).where(JobRow.id == job_id, JobRow.submitter_beat_at.is_not(None))
            session.execute(statement.values(submitter_beat_at=self._database.now(session)))

    def abandon(self, job_id: str, reason: str) -> bool:
        """End a job that its submitter gives up. False when there is none, it is whole, or has ended.

        Args:
            job_id: the job.
            reason: why, without a full stop; what to do is added.
        """
        with self._database.write() as session:
            mine = update(JobRow).where(JobRow.id == job_id, *_OPEN)
            return changed_rows(session, mine.values(_failed(reason))) == 1

    def fail_abandoned(self) -> list[str]:
        """End the jobs whose submitter died. Returns their ids."""
        with self._database.write() as session:
            cutoff = self._database.now(session) - timedelta(seconds=ABANDONED_SECONDS)
            late = update(JobRow).where(JobRow.submitter_beat_at < cutoff, *_OPEN)
            return sorted(session.scalars(late.values(_failed(_LOST)).returning(JobRow.id)))


_OPEN = (
    JobRow.submitter_beat_at.is_not(None),
    JobRow.state.in_([state for state in JobState if not state.ended]),
)


def _take_key(session: Session, key: SubmissionKey, job_id: str) -> None:
    values = {"key": key.key, "digest": key.digest, "job_id": job_id}
    statement = upsert(session, SubmissionKeyRow).values(values).on_conflict_do_nothing()
    # With PostgreSQL's driver an insert's count of rows says nothing.
    if session.scalar(statement.returning(SubmissionKeyRow.key)) is None:
        raise AlreadySubmittedError()


def _failed(reason: str) -> dict[str, object]:
    return {"state": JobState.FAILED, "finished_at": datetime.now(UTC), "error": f"{reason}; {_AGAIN}"}


def _new_row(job: NewJob) -> JobRow:
    return JobRow(
        id=job.id,
        state=JobState.EMBEDDING,
        source=job.source,
        root=job.root,
        report_folder=job.report_folder,
        encoder=asdict(job.encoder),
        encoder_key=job.encoder.key,
        priority=job.priority,
        follow_links=job.follow_links,
        rehash=job.rehash,
        intensity=job.intensity,
        path_key=job.path_key,
        false_alarm_rate=job.false_alarm_rate,
        scorers=list(job.scorers),
        options=None if job.options is None else dict(job.options),
        notes=dict(job.notes),
        scans=0,
        normal=0,
        anomaly=0,
        ignored=0,
        created_at=datetime.now(UTC),
    )


def _count(row: JobRow, scans: Sequence[FoundScan], ignored: Sequence[IgnoredFile]) -> None:
    labels = [scan.label for scan in scans]
    row.scans += len(scans)
    row.normal += labels.count(Label.NORMAL)
    row.anomaly += labels.count(Label.ANOMALY)
    row.ignored += len(ignored)


def batch_sizes(scans: Sequence[FoundScan], size: int) -> list[int]:
    """Cut scans into batches: how many are in each.

    The slices of a volume stay together, or each batch would read its file again; up to `_MOST_TOGETHER` of them.
    What comes behind changes nothing but the last size.
    """
    sizes: list[int] = []
    count = 0
    last: str | None = None
    for scan in scans:
        goes_on = scan.volume is not None and scan.volume == last and count < _MOST_TOGETHER
        if count >= size and not goes_on:
            sizes.append(count)
            count = 0
        count += 1
        last = scan.volume
    return [*sizes, count] if count else sizes
