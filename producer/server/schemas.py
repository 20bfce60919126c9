"""What the service takes and gives, for checking the one and describing the other in `/openapi.json`."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, field_validator

from ...models.encoders import DEFAULT_ENCODER, PRECISIONS
from ...models.records import AUTO_INTENSITY, DEFAULT_FALSE_ALARM_RATE
from ...models.scorers import DEFAULT_SCORERS
from ...models.states import FailureKind, Label, Priority, ScanState

_EXAMPLE_JOB = "3f0c9a52d1"

_Text = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Scorers = Annotated[list[_Name], Field(min_length=1, max_length=20)]

JobStatusDocument = Annotated[dict[str, Any], WithJsonSchema({"$ref": "#/components/schemas/JobStatus"})]
"""A job as `scanomaly status --json` prints it; `status.schema.json` describes it."""


class SubmitRequest(BaseModel):
    """A job that is asked for. All but the source may be left out."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"source": "/data/scans", "normal": ["no/"], "encoder": "efficientnet_lite0"}]
        },
    )

    source: _Text = Field(description="An absolute folder of the service's machine, below one of its roots.")
    normal: list[_Pattern] = Field(
        [],
        max_length=100,
        description="Scans known to be normal: globs or sub-folders. Folders named no, normal, "
        "good or healthy are found without.",
    )
    anomaly: list[_Pattern] = Field([], max_length=100, description="Scans known to be anomalies.")
    labels_file: _Text | None = Field(
        None, description="A CSV file with the columns path,label, below one of the roots."
    )
    group: _Pattern | None = Field(
        None,
        description="What scans of a patient share: a column of labels_file, or a regular expression on the path.",
    )
    encoder: _Name = Field(
        DEFAULT_ENCODER, description="An open_clip model, MODEL or MODEL/TAG; or efficientnet_lite0."
    )
    weights: _Text | None = Field(None, description="A checkpoint, below one of the roots.")
    precision: Literal["fp32", "bf16", "fp16"] = PRECISIONS[0]  # type: ignore[assignment]
    scorers: _Scorers = Field(list(DEFAULT_SCORERS), description="The first ranks the scans.")
    batch_size: int | None = Field(None, ge=1, le=10_000, description="Scans in one queue message.")
    priority: Priority = Priority.NORMAL
    rehash: bool = Field(False, description="Read files too that did not change since they were read last.")
    false_alarm_rate: float = Field(
        DEFAULT_FALSE_ALARM_RATE, gt=0, lt=1, description="The share of normals that may be called anomalies."
    )

    plane: Literal["axial", "coronal", "sagittal"] = Field("axial", description="In which volumes are cut.")
    slices: _Name = Field("all", description="Which slices of volumes are scans: all, middle:K or every:K.")
    intensity: _Name = Field(
        AUTO_INTENSITY,
        description="How values of more than 8 bits become grey: auto, minmax, window:CENTRE,WIDTH or "
        "percentile:LOW,HIGH.",
    )
    hide_paths: bool = Field(False, description="Have ids for paths in all that the service and the report tell.")

    @field_validator("source", "labels_file", "weights", mode="after")
    @classmethod
    def _encodes(cls, path: str | None) -> str | None:
        if path is not None and len(path.encode("utf-8")) > 4096:
            raise ValueError("it is longer than a path can be")
        return path


class ScoreRequest(BaseModel):
    """More scorers for a done job."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"scorers": ["knn", "mahalanobis"], "headline": "knn"}]}
    )

    scorers: _Scorers
    headline: _Name | None = Field(None, description="The scorer that ranks the scans from then on.")


class JobList(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobStatusDocument]
    after: str | None = Field(description="Send it as `after` for the next page; null on the last one.")


class Failure(BaseModel):
    kind: FailureKind
    detail: str


class Scan(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 17,
                    "path": "yes/Y12.jpg",
                    "label": "anomaly",
                    "group": None,
                    "volume": None,
                    "state": "embedded",
                    "failure": None,
                    "score": 0.2413,
                    "score_in_sample": 0.2413,
                }
            ]
        }
    )

    id: int
    path: str = Field(description="Below the job's root, with / between its parts.")
    label: Label | None
    group: str | None
    volume: str | None = Field(description="What it is a slice of; null for a single picture.")
    state: ScanState
    failure: Failure | None
    score: float | None = Field(description="Of a normal, without itself; null before it is scored.")
    score_in_sample: float | None


class ScanList(BaseModel):
    """Scans of a job."""

    scans: list[Scan]
    after: str | None = Field(description="Send it as `after` for the next page; null on the last one.")


class Worker(BaseModel):
    name: str
    state: Literal["alive", "lost", "stopped"]
    host: str
    pid: int
    device: str
    version: str
    running: int = Field(description="How many batches, or jobs to score, it holds.")
    started_at: datetime
    beat_at: datetime
    stopped_at: datetime | None
    stop_reason: str | None


class WorkerList(BaseModel):
    """The workers of the last week, the newest first."""

    workers: list[Worker]


class ReportFile(BaseModel):
    name: str
    bytes: int
    url: str


class ReportFiles(BaseModel):
    """The files of a report."""

    files: list[ReportFile]


class Check(BaseModel):
    ok: bool
    detail: str


class Readiness(BaseModel):
    """Whether jobs that are submitted now would be done."""

    ready: bool
    checks: dict[Literal["store", "broker", "worker"], Check]


class Health(BaseModel):
    status: Literal["ok"]


class WrongPart(BaseModel):
    where: str
    detail: str


class ProblemDocument(BaseModel):
    """RFC 9457. `type` names the kind of error where it is one of Scanomaly's own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:scanomaly:job-not-found",
                    "title": "Not Found",
                    "status": 404,
                    "detail": f"there is no job '{_EXAMPLE_JOB}': `scanomaly jobs` lists them",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    errors: list[WrongPart] | None = Field(None, description="The parts of a request that are wrong.")
