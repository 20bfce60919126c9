"""What scoring reads and writes: a job's vectors, its scores, and the lists of its report.

A million scans pass through here, so all of it comes and goes in pages.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from itertools import islice, repeat
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, func, select, text
from sqlalchemy.orm import Session, aliased

from .database import Database
from .engines import BINARY
from .records import (
    Failure,
    IgnoredFile,
    NamedScan,
    OtherScores,
    OutlinePage,
    PatchPage,
    RankedScan,
    ScorePage,
    Slice,
    Traits,
    VectorPage,
)
from .scorers import DEFAULT_SCORERS
from .states import FailureKind, Label, ScanState
from .tables import ContentRow, EmbeddingRow, IgnoredRow, JobRow, PatchesRow, ScanRow, ScoreRow

_PAGE = 2000
"""Rows read in one statement. The reference is summed up page by page: another number changes scores' last bits."""
_PATCH_PAGE = 128
"""Scans whose patches are read in one statement: at 40 KB each, and four times as much as float32."""
_DIGITS = 16
"""Hexadecimal, of a SHA-256: 64 bits tell a million contents apart but for one chance in 10^7."""
_PAGES_WRITTEN = 10
"""Pages of scores in one transaction: it holds SQLite's write lock for a tenth of a second."""

_Query: TypeAlias = Select[*tuple[Any, ...]]
_Conditions: TypeAlias = Sequence[ColumnElement[bool]]

_LABELS: dict[str | None, Label | None] = {None: None} | {label.value: label for label in Label}

# A page is read in less time than PostgreSQL takes to start processes that help it.
_ALONE = text("SET LOCAL max_parallel_workers_per_gather = 0")

_COLUMNS = ("score", "score_in_sample", "score_copies_out")
_REPLACE = "ON CONFLICT (scorer, scan_id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in _COLUMNS
)
_SAVE_ROW = f"INSERT INTO scores (scorer, scan_id, {', '.join(_COLUMNS)}) VALUES (?, ?, ?, ?, ?) {_REPLACE}"
_SAVE_PAGE = text(
    f"INSERT INTO scores (scorer, scan_id, {', '.join(_COLUMNS)}) SELECT :scorer, page.* "
    "FROM unnest(CAST(:ids AS integer[]), CAST(:scores AS float8[]), CAST(:in_sample AS float8[]), "
    f"CAST(:copies_out AS float8[])) AS page {_REPLACE}"
)


class Scores:
    """The scores of a store. Every method raises StoreUnreachableError when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def vectors(self, job_id: str, label: Label | None = None) -> Iterator[VectorPage]:
        """The embedded scans of a job with their vectors, in pages, in order of submission.

        Args:
            job_id: the job.
            label: only the scans with this label; None for all.
        """
        labelled = [] if label is None else [ScanRow.label == label]
        for rows in self._embedded(job_id, partial(_vector_rows, job_id=job_id), labelled):
            ids, labels, contents, vectors = zip(*rows, strict=True)
            yield VectorPage(ids, [_LABELS[name] for name in labels], contents, b"".join(vectors))

    def patches(self, job_id: str, patches_key: str) -> Iterator[PatchPage]:
        """The embedded scans of a job with their patches, in pages, in order of submission.

        Args:
            job_id: the job.
            patches_key: of the job's encoder.
        """
        of_scan = (PatchesRow.sha256 == ScanRow.sha256) & (PatchesRow.patches_key == patches_key)
        query: _Query = select(ScanRow.id, PatchesRow.patches).join(PatchesRow, of_scan)
        for rows in self._embedded(job_id, partial(_rows_of, query=query), size=_PATCH_PAGE):
            yield PatchPage(*zip(*rows, strict=True))

    def outline(self, job_id: str) -> Iterator[OutlinePage]:
        """The embedded scans of a job without their vectors, in pages, in order of submission."""
        names = [field.name for field in fields(Traits)]
        columns = [getattr(ContentRow, name) for name in names]
        query: _Query = select(ScanRow.id, ScanRow.label, ScanRow.group_name, ScanRow.sha256, *columns).outerjoin(
            ContentRow, ContentRow.sha256 == ScanRow.sha256
        )
        for rows in self._embedded(job_id, partial(_rows_of, query=query)):
            ids, labels, groups, digests, *traits = zip(*rows, strict=True)
            contents = [int(digest[:_DIGITS], 16) for digest in digests]
            by_name = dict(zip(names, traits, strict=True))
            yield OutlinePage(ids, [_LABELS[name] for name in labels], groups, contents, by_name)

    def _embedded(
        self,
        job_id: str,
        read: Callable[[Session, _Conditions], Sequence[Any]],
        further: _Conditions = (),
        size: int | None = None,
    ) -> Iterator[Sequence[Any]]:
        """What `read` finds of the embedded scans of a job, in pages by their ids, which come first in the rows."""
        wanted = [ScanRow.job_id == job_id, ScanRow.state == ScanState.EMBEDDED, *further]
        last = 0
        while True:
            with self._database.read() as session:
                if self._database.dialect == "postgresql":
                    session.execute(_ALONE)
                page = _page_after(session, wanted, last, size or _PAGE)
                if page is None:
                    return
                rows = read(session, page)
            if not rows:
                return
            yield rows
            last = rows[-1][0]

    def named(self, scan_ids: Sequence[int]) -> list[NamedScan]:
        """What lists say of some scans, in their order."""
        query: _Query = select(ScanRow.id, ScanRow.path, ScanRow.label, ScanRow.sha256)
        found: dict[int, NamedScan] = {}
        with self._database.read() as session:
            for start in range(0, len(scan_ids), _PAGE):
                page = ScanRow.id.in_(scan_ids[start : start + _PAGE])
                for scan_id, path, label, sha256 in session.execute(query.where(page)):
                    found[scan_id] = NamedScan(scan_id, path, _LABELS[label], sha256)
        return [found[scan_id] for scan_id in scan_ids]

    def save(self, scorer: str, pages: Iterable[ScorePage]) -> None:
        """Write the scores of a scorer; those from an earlier scoring are replaced."""
        iterator = iter(pages)
        # The next pages are computed before the transaction begins, not in it.
        while group := list(islice(iterator, _PAGES_WRITTEN)):
            with self._database.write() as session:
                for page in group:
                    self._save_page(session, scorer, page)

    def _save_page(self, session: Session, scorer: str, page: ScorePage) -> None:
        ids, scores, in_sample = page.scan_ids, page.scores, page.scores_in_sample
        copies_out = page.scores_copies_out or [None] * len(ids)
        if self._database.dialect == "postgresql":
            arrays = {"ids": list(ids), "scores": list(scores), "in_sample": list(in_sample)}
            arrays["copies_out"] = list(copies_out)
            session.execute(_SAVE_PAGE, {"scorer": scorer} | arrays)
        else:
            # The driver's own call: SQLAlchemy's takes three times as long.
            rows = list(zip(repeat(scorer, len(ids)), ids, scores, in_sample, copies_out, strict=True))
            session.connection().exec_driver_sql(_SAVE_ROW, rows)

    def ranking(self, job_id: str, scorers: Sequence[str] = DEFAULT_SCORERS) -> Iterator[RankedScan]:
        """The scored scans, the most anomalous first; equal scores in order of submission.

        One query, whose rows the database sorts: a reader who pauses keeps its transaction open.

        Args:
            job_id: the job.
            scorers: first the one that ranks, then those whose scores come with it; the job has scores of all.
        """
        tables = [aliased(ScoreRow) for _ in scorers]
        columns = [getattr(table, name) for table in tables for name in _COLUMNS]
        query: _Query = select(
            *(ScanRow.path, ScanRow.label, ScanRow.sha256, ScanRow.group_name, ScanRow.volume_name, *columns)
        ).where(ScanRow.job_id == job_id, ScanRow.state == ScanState.EMBEDDED)
        for name, table in zip(scorers, tables, strict=True):
            query = query.join(table, (table.scan_id == ScanRow.id) & (table.scorer == name))
        query = query.order_by(tables[0].score.desc(), ScanRow.id)
        with self._database.read() as session:
            rows = session.connection().execution_options(yield_per=_PAGE).execute(query)
            for path, label, sha256, group, volume, score, in_sample, copies_out, *rest in rows:
                others = tuple(map(OtherScores, rest[::3], rest[1::3], rest[2::3]))
                yield RankedScan(path, _LABELS[label], score, in_sample, sha256, group, copies_out, others, volume)

    def slices(self, job_id: str, scorer: str, volumes: Sequence[str]) -> dict[str, list[Slice]]:
        """The scored slices of a few volumes, those of each in order of submission.

        Args:
            job_id: the job.
            scorer: whose scores are wanted.
            volumes: the volumes' names. One that has no scored slice is not in what is returned.
        """
        query: _Query = (
            select(ScanRow.volume_name, ScanRow.path, ScanRow.label, ScoreRow.score)
            .join(ScoreRow, (ScoreRow.scan_id == ScanRow.id) & (ScoreRow.scorer == scorer))
            .where(ScanRow.job_id == job_id, ScanRow.state == ScanState.EMBEDDED, ScanRow.volume_name.in_(volumes))
            .order_by(ScanRow.id)
        )
        found: dict[str, list[Slice]] = {}
        with self._database.read() as session:
            for volume, path, label, score in session.execute(query):
                found.setdefault(volume, []).append(Slice(path, _LABELS[label], score))
        return found

    def of_normals(self, job_id: str, scorer: str) -> "array[float]":
        """The scores that a scorer gave the normals, in no order: n float64."""
        return self._of(job_id, scorer, ScanRow.label == Label.NORMAL)

    def of_others(self, job_id: str, scorer: str) -> "array[float]":
        """The scores that a scorer gave the scans that are not known to be normal, in no order: n float64."""
        return self._of(job_id, scorer, ScanRow.label.is_distinct_from(Label.NORMAL))

    def _of(self, job_id: str, scorer: str, labelled: ColumnElement[bool]) -> "array[float]":
        query = (
            select(ScoreRow.score)
            .join(ScanRow, ScanRow.id == ScoreRow.scan_id)
            .where(ScanRow.job_id == job_id, ScanRow.state == ScanState.EMBEDDED, labelled)
            .where(ScoreRow.scorer == scorer)
        )
        with self._database.read() as session:
            rows = session.connection().execution_options(yield_per=_PAGE).execute(query)
            return array("d", (score for (score,) in rows))

    def failures(self, job_id: str) -> Iterator[Failure]:
        """The scans that have no embedding, in order of submission."""
        query: _Query = select(ScanRow.id, ScanRow.path, ScanRow.failure_kind, ScanRow.failure_detail).where(
            ScanRow.job_id == job_id, ScanRow.state == ScanState.FAILED
        )
        for _, path, kind, detail in self._rows(query, ScanRow.id):
            yield Failure(path, FailureKind(kind), detail)

    def ignored(self, job_id: str) -> Iterator[IgnoredFile]:
        """The files that were found and are not scans, in order of discovery; then the scans that were skipped."""
        query: _Query = select(IgnoredRow.id, IgnoredRow.path, IgnoredRow.reason).where(IgnoredRow.job_id == job_id)
        for _, path, reason in self._rows(query, IgnoredRow.id):
            yield IgnoredFile(path, reason)
        query = select(ScanRow.id, ScanRow.path, ScanRow.failure_detail).where(
            ScanRow.job_id == job_id, ScanRow.state == ScanState.SKIPPED
        )
        for _, path, reason in self._rows(query, ScanRow.id):
            yield IgnoredFile(path, reason)

    def _rows(self, query: _Query, key: Any) -> Iterator[Any]:
        """Rows by a key, which comes first in them."""
        for page in self._pages(query, key):
            yield from page

    def _pages(self, query: _Query, key: Any) -> Iterator[Sequence[Any]]:
        """Rows by a key, which comes first in them, each page in its own short transaction."""
        last = 0
        while True:
            with self._database.read() as session:
                page = session.execute(query.where(key > last).order_by(key).limit(_PAGE)).all()
            if not page:
                return
            yield page
            last = page[-1][0]


def _rows_of(session: Session, page: _Conditions, query: _Query) -> Sequence[Any]:
    return session.execute(query.where(*page).order_by(ScanRow.id)).all()


def _vector_rows(session: Session, page: _Conditions, job_id: str) -> Sequence[Any]:
    """The embedded scans of a page: rows of id, label, digest, vector."""
    encoder_key = session.scalar(select(JobRow.encoder_key).where(JobRow.id == job_id))
    of_scan = (EmbeddingRow.sha256 == ScanRow.sha256) & (EmbeddingRow.encoder_key == encoder_key)
    query = (
        select(ScanRow.id, ScanRow.label, ScanRow.sha256, EmbeddingRow.vector)
        .join(EmbeddingRow, of_scan)
        .where(*page)
    )
    result = session.connection().execute(query, execution_options={BINARY: True})
    # The driver's own rows: to make SQLAlchemy's of them takes a tenth of the time of it all.
    # Sorted here, because PostgreSQL would sort the vectors with them, and on disk.
    rows = sorted(result.cursor.fetchall(), key=itemgetter(0))
    result.close()
    return rows


def _page_after(session: Session, wanted: _Conditions, last: int, size: int) -> _Conditions | None:
    """The condition of the scans of the page after the scan `last`; None when there is none.

    Where the page ends is asked first. Told only how many rows are wanted, PostgreSQL joins and sorts the whole job
    for each page.
    """
    ids = select(ScanRow.id).where(*wanted, ScanRow.id > last).order_by(ScanRow.id).limit(size).subquery()
    end = session.scalar(select(func.max(ids.c.id)))
    return None if end is None else [*wanted, ScanRow.id > last, ScanRow.id <= end]
