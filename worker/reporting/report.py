"""What a report says, and its writing: the data that aggregation hands over, and the files made from it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...models.records import Failure, IgnoredFile, RankedScan
from .evaluation import Evaluation
from .files import whole_folder, write_csv
from .page import LISTED, render_page
from .plots import draw_histogram, draw_roc
from .ranking import GROUPS, Excerpt, Ranking

SCHEMA_VERSION = 1
SCORER = "centroid"

SCORES_COLUMNS = ("rank", "path", "label", "score", "score_in_sample", "sha256")
FAILURES_COLUMNS = ("path", "kind", "detail")
IGNORED_COLUMNS = ("path", "reason")

_MOST_ANOMALOUS = 3
_ONE_CONTENT = (
    "all normal scans have the same content, so none can be scored without itself: their scores are in-sample, "
    "and there is no AUROC"
)


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
    """All that a report is made from.

    `scans`, `failures` and `ignored` may be as long as the job: each is read once, from its beginning to its end.

    Attributes:
        source: what the submitter named (a folder, `kaggle:owner/name`, `-`); `root` is where the paths start.
        created_at: when the job was submitted; with a time zone.
        source_note: why another source than the asked for one was taken; shown at the top. None when there is none.
        encoder_note: why another encoder than the usual one ran; shown at the top. None when there is no reason.
        labels_note: how the labels were found.
        scans: by score, highest first, then in order of submission; the rank is the position, from 1.
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
    scans: Iterable[RankedScan]
    failures: Iterable[Failure]
    ignored: Iterable[IgnoredFile]
    timings: ReportTimings
    versions: Mapping[str, str]
    gallery_scans: int
    thumbnail: Callable[[str], bytes | None]

    def __post_init__(self) -> None:
        if self.created_at.tzinfo is None:
            raise ValueError("created_at has no time zone")


@dataclass(frozen=True, eq=False)
class Findings:
    """What the lists of a report come to when all of them have been written."""

    ranking: Ranking
    failures: Excerpt[Failure]
    ignored: Excerpt[IgnoredFile]
    evaluation: Evaluation
    warnings: Sequence[str]

    @property
    def most_anomalous(self) -> Sequence[RankedScan]:
        return self.ranking.first[:_MOST_ANOMALOUS]


def write_report(data: ReportData, folder: Path) -> Findings:
    """Write the report into `folder`, whole or not at all: `docs/report.md` describes its files.

    Raises:
        ReportError: the folder holds something else than a report, or cannot be written.
    """
    with whole_folder(folder) as staging:
        findings = _write_lists(data, staging)
        histogram = draw_histogram({group: findings.ranking.scores_of(group) for group in GROUPS})
        (staging / "histogram.png").write_bytes(histogram)
        evaluation = findings.evaluation
        roc = None
        if evaluation.roc is not None and evaluation.auroc is not None:
            roc = draw_roc(evaluation.roc, evaluation.auroc)
            (staging / "roc.png").write_bytes(roc)
        (staging / "report.html").write_text(render_page(data, findings, histogram, roc), encoding="utf-8")
        files = sorted([*(file.name for file in staging.iterdir()), "report.json"])
        document = json.dumps(_document(data, findings, files), indent=2, ensure_ascii=False, allow_nan=False)
        (staging / "report.json").write_text(document + "\n", encoding="utf-8", errors="backslashreplace")
    return findings


def _write_lists(data: ReportData, staging: Path) -> Findings:
    """Write the CSV files, and keep of their rows what the other files say of them."""
    ranking = Ranking(max(data.gallery_scans, _MOST_ANOMALOUS))
    failures, ignored = Excerpt[Failure](LISTED), Excerpt[IgnoredFile](LISTED)
    ranked = ((rank, *scan) for rank, scan in enumerate(ranking.passing(data.scans), start=1))
    write_csv(staging / "scores.csv", SCORES_COLUMNS, ranked)
    failed = ((failure.path, failure.kind, failure.detail) for failure in failures.passing(data.failures))
    write_csv(staging / "failures.csv", FAILURES_COLUMNS, failed)
    left_out = ((file.path, file.reason) for file in ignored.passing(data.ignored))
    write_csv(staging / "ignored.csv", IGNORED_COLUMNS, left_out)
    warnings = [_ONE_CONTENT] if ranking.one_content else []
    return Findings(ranking, failures, ignored, ranking.evaluation(), warnings)


def _document(data: ReportData, findings: Findings, files: Sequence[str]) -> dict[str, Any]:
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
        "auroc": findings.evaluation.auroc,
        "auroc_in_sample": findings.evaluation.auroc_in_sample,
        "average_precision": findings.evaluation.average_precision,
        "timings": asdict(data.timings),
        "versions": dict(data.versions),
        "warnings": list(findings.warnings),
        "files": list(files),
    }
