"""Who works: heartbeats, and what becomes of the work of those whose heart stopped.

Every time is the database's, so that machines whose clocks differ do not bury one another.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, union_all, update
from sqlalchemy.orm import Session

from .database import Database, changed_rows
from .records import Worker
from .settings import BATCHES_AT_ONCE
from .states import BatchState, JobState
from .tables import BatchRow, DutyRow, JobRow, WorkerRow

BEAT_SECONDS = 2.5
LOST_SECONDS = 10.0
"""A worker whose heart did not beat for so long is lost, and its work goes to another."""

_FORGET = timedelta(days=7)
_SMALLEST_WINDOW = 4


class Workers:
    """The workers of a store. Every method raises StoreUnreachableError when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, name: str, host: str, pid: int, device: str, version: str, encoders: Sequence[str] = ()) -> None:
        """Say that a worker lives. The first beat makes it known, with the encoders whose weights it has."""
        with self._database.write() as session:
            now = self._database.now(session)
            alive = update(WorkerRow).where(WorkerRow.name == name).values(beat_at=now, stopped_at=None)
            if changed_rows(session, alive):
                return
            session.execute(delete(WorkerRow).where(WorkerRow.beat_at < now - _FORGET))
            row = {"name": name, "host": host, "pid": pid, "device": device, "version": version}
            session.execute(insert(WorkerRow).values(started_at=now, beat_at=now, encoders=list(encoders), **row))

    def stop(self, name: str, reason: str | None = None) -> None:
        """Say that a worker stops of its own will: what it holds goes back, and counts as nobody's fault.

        Args:
            name: the worker.
            reason: why it cannot go on; None when it was told to stop.
        """
        with self._database.write() as session:
            now = self._database.now(session)
            stopped = update(WorkerRow).where(WorkerRow.name == name)
            session.execute(stopped.values(stopped_at=now, stop_reason=reason))
            _release(session, [name], died=False)

    def release(self, name: str, died: bool) -> bool:
        """Take from a worker what its process held when it ended, and count a death if it died of it.

        Returns:
            Whether it held anything.
        """
        with self._database.write() as session:
            return _release(session, [name], died=died)

    def release_lost(self) -> list[str]:
        """Take their work from the workers whose heart stopped. Returns their names."""
        with self._database.write() as session:
            alive = alive_names(self._database, session)
            lost = [name for name in session.scalars(_holding().distinct()) if name and name not in alive]
            if lost:
                _release(session, lost, died=True)
            return sorted(lost)

    def release_all(self) -> None:
        """Take their work from all workers: for a caller who knows that none lives."""
        with self._database.write() as session:
            _release(session, [name for name in session.scalars(_holding().distinct()) if name], died=True)
            now = self._database.now(session)
            session.execute(update(WorkerRow).where(WorkerRow.stopped_at.is_(None)).values(stopped_at=now))

    def all(self) -> list[Worker]:
        """The workers of the last week, the newest first."""
        with self._database.read() as session:
            alive = alive_names(self._database, session)
            holding = _holding().subquery()
            held = select(holding.c.worker, func.count()).group_by(holding.c.worker)
            counts: dict[str, int] = dict(session.execute(held).all())
            return [
                Worker(
                    name=row.name,
                    host=row.host,
                    pid=row.pid,
                    device=row.device,
                    version=row.version,
                    started_at=row.started_at,
                    beat_at=row.beat_at,
                    stopped_at=row.stopped_at,
                    alive=row.name in alive,
                    running=counts.get(row.name, 0),
                    encoders=tuple(row.encoders),
                    stop_reason=row.stop_reason,
                )
                for row in session.scalars(select(WorkerRow).order_by(WorkerRow.started_at.desc(), WorkerRow.name))
            ]

    def alive(self) -> int:
        """How many workers live."""
        with self._database.read() as session:
            return len(alive_names(self._database, session))

    def take_turn(self, duty: str, seconds: float) -> bool:
        """Take on a duty that one process at a time has. False when another did within these seconds."""
        with self._database.write() as session:
            now = self._database.now(session)
            taken = (
                update(DutyRow)
                .where(DutyRow.name == duty, DutyRow.taken_at < now - timedelta(seconds=seconds))
                .values(taken_at=now)
            )
            return changed_rows(session, taken) == 1


def alive_names(database: Database, session: Session) -> frozenset[str]:
    """The names of the workers that live."""
    cutoff = database.now(session) - timedelta(seconds=LOST_SECONDS)
    living = select(WorkerRow.name).where(WorkerRow.stopped_at.is_(None), WorkerRow.beat_at > cutoff)
    return frozenset(session.scalars(living))


def window(database: Database, session: Session) -> int:
    """How many batches of one job may be called or running: enough that no worker waits, and so few that a job that
    comes later hardly does."""
    return max(_SMALLEST_WINDOW, 2 * BATCHES_AT_ONCE * len(alive_names(database, session)))


def _held_by(names: Collection[str]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (
        (BatchRow.state == BatchState.RUNNING) & BatchRow.worker.in_(names),
        (JobRow.state == JobState.SCORING) & JobRow.worker.in_(names),
    )


def _holding() -> Select[Any]:
    """The query for who holds a batch or a scoring, once for each."""
    batches = select(BatchRow.worker).where(BatchRow.state == BatchState.RUNNING, BatchRow.worker.is_not(None))
    jobs = select(JobRow.worker).where(JobRow.state == JobState.SCORING, JobRow.worker.is_not(None))
    return select(union_all(batches, jobs).subquery("holding").c.worker)


def _release(session: Session, names: Collection[str], *, died: bool) -> bool:
    batches, jobs = _held_by(names)
    statements = (
        update(BatchRow)
        .where(batches)
        .values(state=BatchState.PENDING, worker=None, queued_at=None, deaths=BatchRow.deaths + int(died)),
        update(JobRow).where(jobs).values(worker=None, queued_at=None, deaths=JobRow.deaths + int(died)),
    )
    return sum(changed_rows(session, statement) for statement in statements) > 0
