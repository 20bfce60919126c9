"""A job's status: as a record, as JSON (`docs/status.schema.json`) and as text."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..models.errors import JobCancelledError, JobFailedError, ScanomalyError
from ..models.records import Job, Progress, Worker
from ..models.states import JobState

if TYPE_CHECKING:
    from ..models.store import Store

SCHEMA_VERSION = 1

SOME_FAILED_EXIT_CODE = 3


@dataclass(frozen=True)
class JobStatus:
    """A job and how far it is, read at one moment."""

    job: Job
    progress: Progress
    workers: int
    """How many workers of the store live."""

    @property
    def stalled(self) -> bool:
        """Whether the job needs a worker and none lives."""
        return self.workers == 0 and self.job.state in (JobState.EMBEDDING, JobState.SCORING)

    @property
    def standstill(self) -> str | None:
        """Why nothing moves, and what to do; None where something should."""
        if self.stalled:
            return "no worker is running: `scanomaly worker` starts one"
        if self.job.state == JobState.PAUSED:
            return f"the job is paused: `scanomaly resume {self.job.id}` takes it up again"
        return None

    @property
    def submitting(self) -> bool:
        """Whether more scans are still to come."""
        return not self.job.whole and not self.job.state.ended

    @property
    def total(self) -> str:
        """How many scans the job has, for a person."""
        return f"{self.job.scans}{' or more' if self.submitting else ''}"

    @property
    def finished_scans(self) -> int:
        return self.progress.embedded + self.progress.failed

    @property
    def images_per_second(self) -> float | None:
        """From the first batch begun to the newest one committed; None before that."""
        begun, last = self.progress.started_at, self.progress.last_at
        if begun is None or last is None or last <= begun:
            return None
        return self.finished_scans / (last - begun).total_seconds()

    @property
    def eta_seconds(self) -> float | None:
        """How long the embedding will take at this speed; None when that is not known, or over."""
        if self.job.state != JobState.EMBEDDING or self.submitting or not self.images_per_second:
            return None
        return (self.job.scans - self.finished_scans) / self.images_per_second

    @property
    def exit_code(self) -> int | None:
        """What `watch` and `run` exit with for this job; None while it runs."""
        if self.job.state == JobState.DONE:
            return SOME_FAILED_EXIT_CODE if self.progress.failed else 0
        error = self.error
        return None if error is None else error.exit_code

    @property
    def error(self) -> ScanomalyError | None:
        """What a person is told when the job did not get to its end."""
        if self.job.state == JobState.FAILED:
            return JobFailedError(f"job {self.job.id} failed: {self.job.error}")
        if self.job.state == JobState.CANCELLED:
            return JobCancelledError(f"job {self.job.id} was cancelled")
        return None

    def to_json(self) -> dict[str, Any]:
        """The document that `docs/status.schema.json` describes."""
        job, progress = self.job, self.progress
        return {
            "schema_version": SCHEMA_VERSION,
            "job": job.id,
            "state": job.state.value,
            "submitting": self.submitting,
            "source": job.source,
            "root": job.root,
            "encoder_key": job.encoder.key,
            "priority": job.priority.value,
            "workers": self.workers,
            "stalled": self.stalled,
            "notes": job.notes,
            "created_at": job.created_at.isoformat(),
            "started_at": _iso(progress.started_at),
            "finished_at": _iso(job.finished_at),
            "scans": {
                "total": job.scans,
                "normal": job.normal,
                "anomaly": job.anomaly,
                "unlabelled": job.scans - job.normal - job.anomaly,
                "embedded": progress.embedded,
                "failed": progress.failed,
                "remaining": job.scans - self.finished_scans,
            },
            "ignored": job.ignored,
            "batches": {
                "total": progress.batches,
                "running": 0 if job.state.ended else progress.running,
                "done": progress.finished,
            },
            "images_per_second": self.images_per_second,
            "eta_seconds": self.eta_seconds,
            "error": job.error,
            "report": job.report_folder if job.state == JobState.DONE else None,
            "result": job.result,
            "exit_code": self.exit_code,
        }


def job_status(store: "Store", job_id: str) -> JobStatus:
    """Read a job's status.

    Raises:
        JobNotFoundError: there is no such job.
    """
    job = store.find_job(job_id)
    return JobStatus(job, store.progress(job.id), store.workers.alive())


def status_lines(status: JobStatus) -> list[str]:
    """The status for a person."""
    job, progress = status.job, status.progress
    lines = [
        f"Job       {job.id}  {job.state}" + (f": {status.standstill}" if status.standstill else ""),
        f"Source    {job.source}",
        f"Encoder   {job.encoder.key}",
        f"Scans     {status.total}: {job.normal} normal, {job.anomaly} anomaly; {job.ignored} other files ignored",
        f"Progress  {progress.embedded} embedded, {progress.failed} failed, "
        f"{job.scans - status.finished_scans} to go" + speed_text(status, "; "),
    ]
    if job.error:
        lines.append(f"Error     {job.error}")
    if job.state == JobState.DONE:
        lines.append(f"Report    {job.report_folder}/report.html")
    return lines


def result_lines(status: JobStatus) -> list[str]:
    """What a done job found, in six lines and the notes."""
    job, progress = status.job, status.progress
    result = job.result or {}
    top = ", ".join(f"{scan['path']} ({scan['score']:.3f})" for scan in result.get("most_anomalous", []))
    failed = f", {progress.failed} failed (failures.csv says why)" if progress.failed else ""
    lines = [
        f"Scans           {progress.embedded} embedded: {job.normal} normal, {job.anomaly} anomaly{failed}",
        f"Encoder         {job.encoder.key}",
        f"AUROC           {_auroc(result)}",
        *_other_scorers(job, result),
        *_called(result.get("decision"), job),
        f"Most anomalous  {top}",
        f"Report          {job.report_folder}/report.html",
    ]
    notes = [job.notes[key] for key in ("source", "encoder") if key in job.notes]
    return [f"Note: {note}" for note in [*notes, *result.get("warnings", [])]] + lines


def _auroc(result: dict[str, Any]) -> str:
    if result.get("auroc") is None:
        return "none: it takes scans of both labels, and normal scans of different content"
    interval = result.get("intervals", {}).get("auroc")  # a report of an older version has none
    sure = f" (95% interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    looser = result.get("auroc_copies_out") or result["auroc"]
    near = f"{looser:.3f} with only identical files left out, " if abs(looser - result["auroc"]) >= 0.0005 else ""
    return (
        f"{result['auroc']:.3f}{sure} leave-one-out, {near}{result['auroc_in_sample']:.3f} in-sample; "
        f"average precision {result['average_precision']:.3f}"
    )


def _other_scorers(job: Job, result: dict[str, Any]) -> list[str]:
    measured = result.get("scorers", {})
    others = [(name, measured.get(name, {}).get("auroc")) for name in job.scorers[1:]]
    if not others:
        return []
    texts = [f"{name} {'not measured' if auroc is None else format(auroc, '.3f')}" for name, auroc in others]
    return [f"Other scorers   AUROC leave-one-out: {', '.join(texts)}"]


def _called(decision: dict[str, Any] | None, job: Job) -> list[str]:
    """What lies above the threshold, where there is one."""
    if decision is None or decision["threshold"] is None:
        return []
    called = decision["called_anomalies"]
    totals = {"anomaly": job.anomaly, "normal": job.normal, "unlabelled": job.scans - job.anomaly - job.normal}
    found = " and ".join(f"{called[group]} of {total} {group}" for group, total in totals.items() if total)
    rate = f"false-alarm rate {decision['false_alarm_rate']:g}"
    return [f"Threshold       {decision['threshold']:.4f} ({rate}): {found} above it"]


def speed_text(status: JobStatus, before: str) -> str:
    """The speed and the time left, with `before` in front; nothing while the speed is not known."""
    if status.images_per_second is None:
        return ""
    eta = "" if status.eta_seconds is None else f", {status.eta_seconds:.0f} s left"
    return f"{before}{status.images_per_second:.1f} images/s{eta}"


def worker_json(worker: Worker) -> dict[str, Any]:
    """A worker as `workers --json` has it."""
    return {
        "name": worker.name,
        "state": _worker_state(worker),
        "host": worker.host,
        "pid": worker.pid,
        "device": worker.device,
        "version": worker.version,
        "running": worker.running,
        "started_at": worker.started_at.isoformat(),
        "beat_at": worker.beat_at.isoformat(),
        "stopped_at": _iso(worker.stopped_at),
    }


def worker_line(worker: Worker) -> str:
    """A worker for a person."""
    work = "works" if worker.running else "waits"
    what = work if worker.alive else f"last heard of {worker.beat_at.astimezone():%Y-%m-%d %H:%M:%S}"
    return f"{worker.name:<40}  {_worker_state(worker):<7}  {worker.device:<6}  {what}"


def _worker_state(worker: Worker) -> str:
    if worker.stopped_at is not None:
        return "stopped"
    return "alive" if worker.alive else "lost"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
