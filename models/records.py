"""What goes into the store and what comes out of it: plain frozen records, never rows of a session."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from .encoders import EncoderSpec
from .scorers import DEFAULT_SCORERS
from .states import FailureKind, JobState, Label, Priority, ScanState

DEFAULT_FALSE_ALARM_RATE = 0.05
AUTO_INTENSITY = "auto"


class FoundScan(NamedTuple):
    """A scan as discovery finds it: `path` is relative to the job's root, with `/` between its parts."""

    path: str
    label: Label | None = None
    group: str | None = None
    """The patient, say, whose scans are left out together."""
    volume: str | None = None
    """The series or the file with several frames that it is a slice of."""


@dataclass(frozen=True)
class IgnoredFile:
    """A file below the root that is not a scan, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class SubmissionKey:
    """By what a submitter recognises a submission that it repeats."""

    key: str
    digest: str
    """Of what is asked for: the same key with another one is a mistake."""


@dataclass(frozen=True)
class NewJob:
    """What `submit` hands to the store."""

    id: str
    source: str
    root: str
    report_folder: str
    encoder: EncoderSpec
    batch_size: int
    notes: Mapping[str, str] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    follow_links: bool = False
    """Whether scans may lie outside the root, behind symbolic links."""
    rehash: bool = False
    """Whether files are read that did not change since they were read last."""
    intensity: str = AUTO_INTENSITY
    """How values of more than 8 bits become grey, as `parse_intensity` reads it."""
    path_key: str | None = None
    """With what paths are hidden in all that leaves the machine; None where they are shown."""
    false_alarm_rate: float = DEFAULT_FALSE_ALARM_RATE
    """The share of normal scans that the report may call anomalies."""
    scorers: tuple[str, ...] = DEFAULT_SCORERS
    """Names, first the one that ranks the scans."""
    key: SubmissionKey | None = None
    options: Mapping[str, Any] | None = None
    """What was asked for, by the names of `JobOptions`: with the same, the job can be run again."""


@dataclass(frozen=True)
class Job:
    id: str
    state: JobState
    source: str
    root: str
    report_folder: str
    encoder: EncoderSpec
    priority: Priority
    follow_links: bool
    intensity: str
    path_key: str | None
    false_alarm_rate: float
    scorers: tuple[str, ...]
    options: dict[str, Any] | None
    """What was asked for, by the names of `JobOptions`; None in a job of an older version."""
    notes: dict[str, str]
    scans: int
    normal: int
    anomaly: int
    ignored: int
    stage: str | None
    """What a worker does for it beside embedding, as it said last, in words of `stages.py`."""
    whole: bool
    """Whether all of it is in the store. While it is not, the four numbers above grow."""
    created_at: datetime
    finished_at: datetime | None
    error: str | None
    result: dict[str, Any] | None


@dataclass(frozen=True)
class Progress:
    """Sums over a job's batches."""

    batches: int
    running: int
    finished: int
    embedded: int
    failed: int
    skipped: int
    encoded: int
    started_at: datetime | None
    """When the first batch was begun."""
    last_at: datetime | None
    """When the newest batch was committed."""

    @property
    def scans(self) -> int:
        """How many are no longer waited for."""
        return self.embedded + self.failed + self.skipped


@dataclass(frozen=True)
class BatchScan:
    id: int
    path: str


@dataclass(frozen=True)
class FileState:
    """What a file held when it was read. With another size or time of modification it may hold something else."""

    size: int
    modified_ns: int
    """Nanoseconds since 1970."""
    sha256: str


@dataclass(frozen=True)
class WaitingBatch:
    """A batch that nobody has begun, or whose worker may be dead."""

    encoder: EncoderSpec
    deaths: int


@dataclass(frozen=True)
class Batch:
    """A batch that a worker has begun."""

    id: int
    job_id: str
    root: str
    follow_links: bool
    rehash: bool
    intensity: str
    encoder: EncoderSpec
    deaths: int
    """How many workers died while they held it, or the larger batch that it was split off."""
    scans: tuple[BatchScan, ...]


@dataclass(frozen=True)
class Call:
    """A wake-up call that is due: for a batch to be embedded."""

    batch_id: int
    priority: Priority


@dataclass(frozen=True)
class Worker:
    """A worker as its heartbeat describes it. `name` is new at every start."""

    name: str
    host: str
    pid: int
    device: str
    version: str
    started_at: datetime
    beat_at: datetime
    stopped_at: datetime | None
    alive: bool
    """Whether it has not stopped, and its heart beat not long ago by the store's clock."""
    running: int
    """How many batches, or jobs to score, it holds."""
    encoders: tuple[str, ...] = ()
    """Names of encoders whose weights it has, as `--encoder` takes them."""
    stop_reason: str | None = None
    """Why it stopped, where nobody told it to."""


@dataclass(frozen=True)
class ScanResult:
    """How one scan of a batch ended: embedded, with the digest of its content; or failed, or skipped, with the
    reason."""

    scan_id: int
    sha256: str | None = None
    failure: FailureKind | None = None
    detail: str | None = None
    skipped: bool = False


@dataclass(frozen=True)
class VectorPage:
    """n embedded scans with their vectors. The columns are in one order."""

    scan_ids: Sequence[int]
    labels: Sequence[Label | None]
    contents: Sequence[str]
    """SHA-256 digests."""
    vectors: bytes
    """(n, dimension) float32, little-endian, each row L2-normalised."""


@dataclass(frozen=True)
class PatchPage:
    """n embedded scans with their patches. The columns are in one order."""

    scan_ids: Sequence[int]
    patches: Sequence[bytes]
    """As `worker/patches.py` packs them."""


@dataclass(frozen=True)
class OutlinePage:
    """n embedded scans without their vectors. The columns are in one order."""

    scan_ids: Sequence[int]
    labels: Sequence[Label | None]
    groups: Sequence[str | None]
    contents: Sequence[int]
    """The first 64 bits of the SHA-256 digests."""
    traits: Mapping[str, Sequence[Any]]
    """Columns by the names of `Traits`; None for a scan that was embedded before traits were measured."""


@dataclass(frozen=True)
class ScorePage:
    """The scores of n scans. The columns are in one order."""

    scan_ids: Sequence[int]
    scores: Sequence[float]
    scores_in_sample: Sequence[float]
    scores_copies_out: Sequence[float | None] = ()
    """None where it is the same as the score; none at all where that is so for all."""


class RankedScan(NamedTuple):  # a million of them are made, and written as rows
    path: str
    label: Label | None
    score: float
    score_in_sample: float
    sha256: str
    group: str | None = None
    score_copies_out: float | None = None
    """None where it is the same as the score."""
    others: tuple["OtherScores", ...] = ()
    """Of the job's other scorers, in the order that the job names them."""
    volume: str | None = None


class Slice(NamedTuple):
    """A scored scan of a volume."""

    path: str
    label: Label | None
    score: float


class OtherScores(NamedTuple):
    """What one scorer gives a scan; for a scan that is no normal they are equal."""

    score: float
    score_in_sample: float
    score_copies_out: float | None = None
    """None where it is the same as the score."""


@dataclass(frozen=True)
class Failure:
    path: str
    kind: FailureKind
    detail: str


@dataclass(frozen=True)
class Traits:
    """What of a scan is plain to see without an encoder, as `worker/encoding/traits.py` measures it."""

    format: str
    """Pillow's name of the file's format: `JPEG`, `PNG`, …"""
    file_bytes: int
    width: int
    """In pixels, as is the height."""
    height: int
    grey_mean: float
    """From 0, black, to 255, white."""
    grey_spread: float
    """The standard deviation of grey."""
    border_share: float
    """The share of the picture that is black border, in [0, 1]."""
    perceptual_hash: int
    """64 bits, not negative. Those of pictures that look alike differ in few bits."""


@dataclass(frozen=True)
class NewContent:
    """What a worker found out about a content."""

    vector: bytes
    """float32, little-endian, L2-normalised."""
    traits: Traits
    patches: bytes | None = None
    """As `worker/patches.py` packs them; None where the job's encoder makes none."""


class NamedScan(NamedTuple):
    """An embedded scan as lists name it."""

    id: int
    path: str
    label: Label | None
    sha256: str


@dataclass(frozen=True)
class JobFilter:
    """Which jobs a list has."""

    states: tuple[JobState, ...] = ()
    """None for all."""
    source: str | None = None
    """A part of the source, as the submitter named it."""


@dataclass(frozen=True)
class ScanFilter:
    """Which scans of a job a list has, and in what order."""

    state: ScanState | None = None
    label: Label | None = None
    unlabelled: bool = False
    """Only the scans without a label."""
    failure: FailureKind | None = None
    least_score: float | None = None
    greatest_score: float | None = None
    by_score: bool = False
    """The most anomalous first, of those that have a score; else all, in order of submission."""

    @property
    def needs_scores(self) -> bool:
        return self.by_score or self.least_score is not None or self.greatest_score is not None


class Place(NamedTuple):
    """Where a page of scans ends."""

    scan: int
    score: float | None = None


class ListedScan(NamedTuple):
    """A scan as lists for other programs have it."""

    id: int
    path: str
    label: Label | None
    group: str | None
    volume: str | None
    state: ScanState
    failure: FailureKind | None
    failure_detail: str | None
    score: float | None
    """What the list's scorer gave it; None before it is scored."""
    score_in_sample: float | None


class Listed(NamedTuple):
    """A job in a list of all."""

    state: JobState
    finished_at: datetime | None


@dataclass(frozen=True)
class Totals:
    """Sums over batches."""

    embedded: int = 0
    failed: int = 0
    encoded: int = 0
    batches: int = 0
    """Those that are done."""
    seconds: float = 0.0
    """From when they were begun to their commits, all together."""
    within: tuple[int, ...] = ()
    """How many took at most so many seconds, for each of `lists.BATCH_SECONDS`."""

    def __add__(self, other: "Totals") -> "Totals":
        within = tuple(map(sum, zip(self.within, other.within, strict=True))) if self.within else other.within
        return Totals(
            self.embedded + other.embedded,
            self.failed + other.failed,
            self.encoded + other.encoded,
            self.batches + other.batches,
            self.seconds + other.seconds,
            within,
        )
