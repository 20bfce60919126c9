"""What a report says, and its writing: the data that aggregation hands over, and the files made from it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...models.records import Failure, RankedScan
from .evaluation import Evaluation
from .files import whole_folder, write_csv
from .page import render_page
from .plots import draw_histogram, draw_roc

SCHEMA_VERSION = 1
SCORER = "centroid"

SCORES_COLUMNS = ("rank", "path", "label", "score", "score_in_sample", "sha256")
FAILURES_COLUMNS = ("path", "kind", "detail")
IGNORED_COLUMNS = ("path", "reason")


@dataclass(frozen=True)
class ReportCounts:
    """How many scans the job has, by label and by outcome, and how many files were no scans (`ignored`)."""

    scans: int
    normal: int
    anomaly: int
    unlabelled: int
    embedded: int
    failed: int
    ignored: int


@dataclass(frozen=True)
class ReportTimings:
    """Wall-clock seconds. `embedding_seconds` runs from the first batch begun to the last batch committed;
    `scans_encoded` counts the scans that went through the encoder in that time."""

    embedding_seconds: float
    scoring_seconds: float
    total_seconds: float
    scans_encoded: int


@dataclass(frozen=True, eq=False)
class ReportData:
    """All that a report says.

    Attributes:
        source: what the submitter named (a folder, `kaggle:owner/name`, `-`); `root` is where the paths start.
        created_at: when the job was submitted; with a time zone.
        source_note: why another source than the asked for one was taken; shown at the top. None when there is none.
        encoder_note: why another encoder than the usual one ran; shown at the top. None when there is no reason.
        labels_note: how the labels were found.
        scans: by score, highest first, then by path; the rank is the position, from 1.
        ignored: (path, reason) of the files that are no scans.
        versions: package name → version.
        gallery_scans: how many scans the page shows, from the top of the ranking.
        thumbnail: relative path → JPEG bytes, or None when the file cannot be read any more. Called from a few
            threads at once, and only for scans that are shown.
    """

    job_id: str
    source: str
    root: str
    created_at: datetime
    encoder_key: str
    source_note: str | None
    encoder_note: str | None
    labels_note: str
    counts: ReportCounts
    evaluation: Evaluation
    scans: Sequence[RankedScan]
    failures: Sequence[Failure]
    ignored: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    timings: ReportTimings
    versions: Mapping[str, str]
    gallery_scans: int
    thumbnail: Callable[[str], bytes | None]

    def __post_init__(self) -> None:
        if self.created_at.tzinfo is None:
            raise ValueError("created_at has no time zone")


def write_report(data: ReportData, folder: Path) -> None:
    """Write the report into `folder`, whole or not at all: `docs/report.md` describes its files.

    Raises:
        ReportError: the folder holds something else than a report, or cannot be written.
    """
    histogram = draw_histogram(_score_groups(data.scans))
    evaluation = data.evaluation
    roc = None
    if evaluation.roc is not None and evaluation.auroc is not None:
        roc = draw_roc(evaluation.roc, evaluation.auroc)
    page = render_page(data, histogram, roc)

    with whole_folder(folder) as staging:
        (staging / "report.html").write_text(page, encoding="utf-8")
        (staging / "histogram.png").write_bytes(histogram)
        if roc is not None:
            (staging / "roc.png").write_bytes(roc)
        write_csv(staging / "scores.csv", SCORES_COLUMNS, _score_rows(data.scans))
        write_csv(staging / "failures.csv", FAILURES_COLUMNS, ((f.path, f.kind, f.detail) for f in data.failures))
        write_csv(staging / "ignored.csv", IGNORED_COLUMNS, data.ignored)
        files = sorted([*(file.name for file in staging.iterdir()), "report.json"])
        document = json.dumps(_document(data, files), indent=2, ensure_ascii=False, allow_nan=False)
        (staging / "report.json").write_text(document + "\n", encoding="utf-8", errors="backslashreplace")


def _score_groups(scans: Sequence[RankedScan]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {"normal": [], "anomaly": [], "unlabelled": []}
    for scan in scans:
        groups[scan.label or "unlabelled"].append(scan.score)
    return groups


def _score_rows(scans: Sequence[RankedScan]) -> Iterator[tuple[int, str, str, float, float, str]]:
    for rank, scan in enumerate(scans, start=1):
        yield rank, scan.path, scan.label or "", float(scan.score), float(scan.score_in_sample), scan.sha256


def _document(data: ReportData, files: Sequence[str]) -> dict[str, Any]:
    """The content of report.json, as docs/report.schema.json describes it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "job": {
            "id": data.job_id,
            "source": data.source,
            "root": data.root,
            "created_at": data.created_at.astimezone(UTC).isoformat(timespec="seconds"),
        },
        "encoder_key": data.encoder_key,
        "source_note": data.source_note,
        "encoder_note": data.encoder_note,
        "scorer": SCORER,
        "labels_note": data.labels_note,
        "counts": asdict(data.counts),
        "auroc": data.evaluation.auroc,
        "auroc_in_sample": data.evaluation.auroc_in_sample,
        "average_precision": data.evaluation.average_precision,
        "timings": asdict(data.timings),
        "versions": dict(data.versions),
        "warnings": list(data.warnings),
        "files": list(files),
    }
