"""The states of a job and of its parts, and which change is allowed."""

from enum import StrEnum


class Label(StrEnum):
    """What the submitter says a scan is. A scan without a label has None."""

    NORMAL = "normal"
    ANOMALY = "anomaly"

    # A member equals its text; and counting a million of them takes a hash that is not written in Python.
    __hash__ = str.__hash__


class Priority(StrEnum):
    """Whose calls the workers take first. Jobs of one priority share the workers."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class JobState(StrEnum):
    EMBEDDING = "embedding"
    PAUSED = "paused"
    SCORING = "scoring"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether no worker will touch the job again unless a person asks for it."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)

    def way_on(self, job_id: str) -> str:
        """What a job is and how it goes on, for who wants to take it up in a way that it does not allow."""
        ways = {
            JobState.PAUSED: f"`scanomaly resume {job_id}` takes it up again",
            JobState.FAILED: f"`scanomaly retry {job_id}` takes it up again",
            JobState.DONE: f"`scanomaly retry {job_id}` takes up the scans that failed",
            JobState.CANCELLED: "submit it again; what is embedded is not embedded twice",
        }
        return f"job {job_id} is {self}: {ways.get(self, 'it is still running')}"


#: From a state to the states that may follow it. `retry` and `score` are what lead out of an ended state.
JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.EMBEDDING: frozenset({JobState.PAUSED, JobState.SCORING, JobState.FAILED, JobState.CANCELLED}),
    JobState.PAUSED: frozenset({JobState.EMBEDDING, JobState.FAILED, JobState.CANCELLED}),
    JobState.SCORING: frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED}),
    JobState.DONE: frozenset({JobState.EMBEDDING, JobState.SCORING}),
    JobState.FAILED: frozenset({JobState.EMBEDDING}),
    JobState.CANCELLED: frozenset(),
}


class BatchState(StrEnum):
    """pending: no worker was called for it yet. queued: its call is on its way. running: a worker holds it."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class ScanState(StrEnum):
    PENDING = "pending"
    EMBEDDED = "embedded"
    FAILED = "failed"
    SKIPPED = "skipped"
    """There is nothing to see in it: an empty slice of a volume."""


class FailureKind(StrEnum):
    """Why a scan has no embedding."""

    MISSING = "missing"
    OUTSIDE_ROOT = "outside_root"
    UNREADABLE = "unreadable"
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported"
    """An image in a format, or compressed in a way, that Scanomaly does not read."""
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    NOT_FINITE = "not_finite"
    CRASHED_WORKER = "crashed_worker"
