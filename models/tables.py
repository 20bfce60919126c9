"""The tables. Change one, and write a migration beside it in `models/migrations/versions/`."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from .records import AUTO_INTENSITY, DEFAULT_FALSE_ALARM_RATE
from .scorers import DEFAULT_SCORERS

# Names for constraints, the same on every database, so that a migration can drop one.
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite keeps no time zone, so it is put back when a row is read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=_NAMES)


class JobRow(Base):
    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    source: Mapped[str] = mapped_column(Text)
    root: Mapped[str] = mapped_column(Text)
    """The absolute folder that the scans' paths are relative to."""
    report_folder: Mapped[str] = mapped_column(Text)
    encoder: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The fields of `EncoderSpec`."""
    encoder_key: Mapped[str] = mapped_column(Text)
    priority: Mapped[str] = mapped_column(String(16))
    follow_links: Mapped[bool]
    rehash: Mapped[bool] = mapped_column(default=False)
    """Whether files are read that did not change since they were read last."""
    intensity: Mapped[str] = mapped_column(Text, default=AUTO_INTENSITY)
    """How values of more than 8 bits become grey, as `parse_intensity` reads it."""
    path_key: Mapped[str | None] = mapped_column(Text)
    """With what paths are hidden in all that leaves the machine: see `hiding.py`. None where they are shown."""
    false_alarm_rate: Mapped[float] = mapped_column(default=DEFAULT_FALSE_ALARM_RATE)
    """The share of normal scans that the report may call anomalies."""
    scorers: Mapped[list[str]] = mapped_column(JSON, default=list(DEFAULT_SCORERS))
    """Names, first the one that ranks the scans."""
    options: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """What was asked for, by the names of `JobOptions`; None in a job of an older version."""
    notes: Mapped[dict[str, str]] = mapped_column(JSON)
    """What the submitter said about the choice of `source`, `encoder` and `labels`."""
    scans: Mapped[int]
    normal: Mapped[int]
    anomaly: Mapped[int]
    ignored: Mapped[int]
    submitter_beat_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When its submitter was last heard of, by the database's clock; None from when the job is whole."""
    worker: Mapped[str | None] = mapped_column(String(100))
    """Who scores it now."""
    stage: Mapped[str | None] = mapped_column(Text)
    """What its worker does beside embedding, in words of `stages.py`."""
    queued_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the call to score it was sent."""
    deaths: Mapped[int] = mapped_column(default=0)
    """How many workers died while they scored it."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """Metrics, timings and warnings of a done job, as `report.json` has them."""


class SubmissionKeyRow(Base):
    """By what a submitter recognises a submission that it repeats: it gets the job that is there."""

    __tablename__ = "submission_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    """Of what was asked for."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))


class BatchRow(Base):
    """A batch counts its scans itself, so that a job's progress never counts the rows of `scans`."""

    __tablename__ = "batches"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    state: Mapped[str] = mapped_column(String(16))
    worker: Mapped[str | None] = mapped_column(String(100))
    """Who holds it while it is running."""
    queued_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When its call was sent; None while it is pending."""
    deaths: Mapped[int] = mapped_column(default=0)
    """How many workers died while they held it, or the larger batch that it was split off."""
    scans: Mapped[int]
    embedded: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    skipped: Mapped[int] = mapped_column(default=0)
    encoded: Mapped[int] = mapped_column(default=0)
    """Scans that went through the encoder; the others had an embedding already."""
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    # What runs and what is called is looked for in all jobs, every few seconds.
    __table_args__ = (Index(None, "job_id", "state"), Index(None, "state", "worker"))


class ScanRow(Base):
    __tablename__ = "scans"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"), index=True)
    path: Mapped[str] = mapped_column(Text)
    label: Mapped[str | None] = mapped_column(String(16))
    group_name: Mapped[str | None] = mapped_column(Text)
    """Of the patient, say, whose scans are left out together; None for a scan that is alone."""
    volume_name: Mapped[str | None] = mapped_column(Text)
    """Of the series or the file with several frames that it is a slice of; None for a single picture."""
    state: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str | None] = mapped_column(String(64))
    failure_kind: Mapped[str | None] = mapped_column(String(32))
    failure_detail: Mapped[str | None] = mapped_column(Text)
    """Why it failed, or was skipped."""

    # No index has `state` in it: it would be written with every scan that is embedded. PostgreSQL keeps room in its
    # pages, so that a scan's new row comes beside the old one.
    __table_args__ = (
        Index(None, "job_id", "id"),
        # Of those that failed, which are few: for whoever counts them while a job runs.
        Index(
            None,
            "job_id",
            "failure_kind",
            sqlite_where=text("failure_kind IS NOT NULL"),
            postgresql_where=text("failure_kind IS NOT NULL"),
        ),
        {"postgresql_with": {"fillfactor": 70}},
    )


class ScoreRow(Base):
    """What one scorer gave one scan."""

    __tablename__ = "scores"

    scorer: Mapped[str] = mapped_column(String(32), primary_key=True)
    scan_id: Mapped[int] = mapped_column(ForeignKey("scans.id"), primary_key=True)
    score: Mapped[float]
    """Of a normal, from the normals of other units: see `worker/scoring/units.py`."""
    score_in_sample: Mapped[float]
    """From all normals."""
    score_copies_out: Mapped[float | None]
    """Of a normal, from the normals of other contents; None where that is the same as `score`."""

    # Without a row id of its own, SQLite keeps the rows in the key's order, in which they are written and read.
    __table_args__ = ({"sqlite_with_rowid": False},)


class IgnoredRow(Base):
    """A file below a job's root that is not a scan."""

    __tablename__ = "ignored_files"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    path: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)


class EmbeddingRow(Base):
    """Keyed by content, not by scan: the same image is encoded once, in whatever job it comes."""

    __tablename__ = "embeddings"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    encoder_key: Mapped[str] = mapped_column(String(200), primary_key=True)
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    """float32, little-endian, L2-normalised."""


class ContentRow(Base):
    """The traits of a content, as `worker/encoding/traits.py` measures them."""

    __tablename__ = "contents"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    format: Mapped[str] = mapped_column(String(16))
    file_bytes: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    grey_mean: Mapped[float]
    grey_spread: Mapped[float]
    border_share: Mapped[float]
    perceptual_hash: Mapped[int] = mapped_column(BigInteger)
    """64 bits; the highest is the sign."""


class PatchesRow(Base):
    """The patches of a content, for jobs whose scorers compare them."""

    __tablename__ = "patches"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    patches_key: Mapped[str] = mapped_column(String(200), primary_key=True)
    patches: Mapped[bytes] = mapped_column(LargeBinary)
    """As `worker/patches.py` packs them."""


class FileRow(Base):
    """What a file held when it was last read."""

    __tablename__ = "files"

    path_digest: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    """blake2b of the absolute path, as the job names it, and of how it was read."""
    size: Mapped[int] = mapped_column(BigInteger)
    modified_ns: Mapped[int] = mapped_column(BigInteger)
    """Time of the last modification, in nanoseconds since 1970."""
    sha256: Mapped[str] = mapped_column(String(64))


class WorkerRow(Base):
    """A worker that beats. Times are the database's, so that clocks that differ kill nobody."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int]
    device: Mapped[str] = mapped_column(String(32))
    version: Mapped[str] = mapped_column(String(32))
    encoders: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Names of encoders whose weights it has."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    beat_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    stopped_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    stop_reason: Mapped[str | None] = mapped_column(Text)
    """Why it stopped, where nobody told it to."""


class DutyRow(Base):
    """What one process at a time does for all, every few seconds."""

    __tablename__ = "duties"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    taken_at: Mapped[datetime] = mapped_column(UtcDateTime)
