"""A job's status: one record, read from the store or from its JSON (`status.schema.json`)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from ..models.durations import duration
from ..models.errors import JobCancelledError, JobFailedError, ScanomalyError
from ..models.hiding import Hiding
from ..models.records import Job, Progress
from ..models.stages import EMBEDDING, SCORING, WAITING
from ..models.states import JobState, Priority

if TYPE_CHECKING:
    from ..models.store import Store

SCHEMA_VERSION = 1

SOME_FAILED_EXIT_CODE = 3


@dataclass(frozen=True)
class ScanCounts:
    """Scans of a job, by label and by what became of them so far."""

    total: int
    normal: int
    anomaly: int
    unlabelled: int
    embedded: int
    failed: int
    skipped: int
    """Empty slices of volumes."""
    remaining: int


@dataclass(frozen=True)
class BatchCounts:
    total: int
    running: int
    done: int


@dataclass(frozen=True)
class JobStatus:
    """A job and how far it is, read at one moment. The fields are those of `status.schema.json`."""

    job: str
    state: JobState
    stage: str | None
    """What is being done, in words of `models/stages.py`; None where nothing is, or an older service asked."""
    submitting: bool
    """Whether more scans are still to come."""
    source: str
    root: str
    encoder_key: str
    scorers: tuple[str, ...]
    priority: Priority
    workers: int
    """How many workers of the store live."""
    notes: Mapping[str, str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    scans: ScanCounts
    ignored: int
    batches: BatchCounts
    images_per_second: float | None
    eta_seconds: float | None
    error: str | None
    report: str | None
    """The folder of the report of a done job, as the submitter named it."""
    result: Mapping[str, Any] | None

    @classmethod
    def of(cls, job: Job, progress: Progress, workers: int) -> Self:
        """What the store knows, of a moment."""
        hiding = Hiding(job.path_key)
        submitting = not job.whole and not job.state.ended
        speed = _images_per_second(progress)
        return cls(
            job=job.id,
            state=job.state,
            stage=_stage(job, progress, workers),
            submitting=submitting,
            source=hiding.place(job.source),
            root=hiding.place(job.root),
            encoder_key=job.encoder.key,
            scorers=job.scorers,
            priority=job.priority,
            workers=workers,
            notes=job.notes,
            created_at=job.created_at,
            started_at=progress.started_at,
            finished_at=job.finished_at if job.state.ended else None,
            scans=ScanCounts(
                total=job.scans,
                normal=job.normal,
                anomaly=job.anomaly,
                unlabelled=job.scans - job.normal - job.anomaly,
                embedded=progress.embedded,
                failed=progress.failed,
                skipped=progress.skipped,
                remaining=job.scans - progress.scans,
            ),
            ignored=job.ignored,
            batches=BatchCounts(
                total=progress.batches,
                running=0 if job.state.ended else progress.running,
                done=progress.finished,
            ),
            images_per_second=speed,
            eta_seconds=(
                (job.scans - progress.scans) / speed
                if speed and job.state == JobState.EMBEDDING and not submitting
                else None
            ),
            error=job.error,
            report=job.report_folder if job.state == JobState.DONE else None,
            result=job.result,
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote. What a newer version adds is left out.

        Raises:
            KeyError, ValueError, TypeError: it is no such document.
        """
        document = {"stage": None, **document}  # which an older service does not send
        values = {field.name: document[field.name] for field in fields(cls)}
        return cls(
            **values
            | {
                "state": JobState(document["state"]),
                "priority": Priority(document["priority"]),
                "scorers": tuple(document["scorers"]),
                "scans": ScanCounts(**document["scans"]),
                "batches": BatchCounts(**document["batches"]),
            }
            | {name: parse_moment(document[name]) for name in ("created_at", "started_at", "finished_at")}
        )

    def to_json(self) -> dict[str, Any]:
        """The document that `status.schema.json` describes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return (
            {"schema_version": SCHEMA_VERSION}
            | values
            | {
                "state": self.state.value,
                "priority": self.priority.value,
                "scorers": list(self.scorers),
                "scans": vars(self.scans),
                "batches": vars(self.batches),
                "stalled": self.stalled,
                "exit_code": self.exit_code,
            }
            | {name: iso(values[name]) for name in ("created_at", "started_at", "finished_at")}
        )

    @property
    def stalled(self) -> bool:
        """Whether the job needs a worker and none lives."""
        return self.workers == 0 and self.state in (JobState.EMBEDDING, JobState.SCORING)

    @property
    def standstill(self) -> str | None:
        """Why nothing moves, and what to do; None where something should."""
        if self.stalled:
            return "no worker is running: `scanomaly worker` starts one"
        if self.state == JobState.PAUSED:
            return f"the job is paused: `scanomaly resume {self.job}` takes it up again"
        return None

    @property
    def total(self) -> str:
        """How many scans the job has, for a person."""
        return f"{self.scans.total}{' or more' if self.submitting else ''}"

    @property
    def finished_scans(self) -> int:
        return self.scans.embedded + self.scans.failed + self.scans.skipped

    @property
    def exit_code(self) -> int | None:
        """What `watch` and `run` exit with for this job; None while it runs."""
        if self.state == JobState.DONE:
            return SOME_FAILED_EXIT_CODE if self.scans.failed else 0
        failure = self.failure
        return None if failure is None else failure.exit_code

    @property
    def failure(self) -> ScanomalyError | None:
        """What a person is told when the job did not get to its end."""
        if self.state == JobState.FAILED:
            return JobFailedError(f"job {self.job} failed: {self.error}")
        if self.state == JobState.CANCELLED:
            return JobCancelledError(f"job {self.job} was cancelled")
        return None


def _stage(job: Job, progress: Progress, workers: int) -> str | None:
    if job.state not in (JobState.EMBEDDING, JobState.SCORING):
        return None
    if workers == 0:
        return WAITING
    if job.state == JobState.SCORING:
        return job.stage or SCORING
    if progress.started_at is None:
        return WAITING
    # Each worker loads the encoder; once scans are embedded, that is no news.
    return job.stage if job.stage is not None and progress.scans == 0 else EMBEDDING


def _images_per_second(progress: Progress) -> float | None:
    """From the first batch begun to the newest one committed; None before that."""
    begun, last = progress.started_at, progress.last_at
    if begun is None or last is None or last <= begun:
        return None
    return progress.scans / (last - begun).total_seconds()


def job_status(store: "Store", job_id: str) -> JobStatus:
    """Read a job's status.

    Raises:
        JobNotFoundError: there is no such job.
    """
    return status_of(store, store.find_job(job_id))


def status_of(store: "Store", job: Job) -> JobStatus:
    """The status of a job that was read a moment ago."""
    return JobStatus.of(job, store.progress(job.id), store.workers.alive())


def speed_text(images_per_second: float | None, eta_seconds: float | None, before: str) -> str:
    """The speed and the time left, with `before` in front; nothing while the speed is not known."""
    if images_per_second is None:
        return ""
    eta = "" if eta_seconds is None else f", {duration(eta_seconds)} left"
    return f"{before}{images_per_second:.1f} images/s{eta}"


def iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def parse_moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
