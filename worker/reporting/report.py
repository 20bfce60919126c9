"""What a report says, and its writing: the data that aggregation hands over, and the files made from it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ...models.records import Failure, IgnoredFile, RankedScan
from .decisions import Decisions, decided
from .evaluation import Difference, Estimate, Evaluation, ScorerResult
from .files import whole_folder, write_csv
from .page import LISTED, render_page
from .plots import draw_histogram, draw_precision_recall, draw_roc
from .ranking import GROUPS, Excerpt, Ranking
from .wording import AXES

SCHEMA_VERSION = 1

SCORES_COLUMNS = ("rank", "path", "label", "score", "score_in_sample", "sha256", "p_value", "predicted")
FAILURES_COLUMNS = ("path", "kind", "detail")
IGNORED_COLUMNS = ("path", "reason")

_MOST_ANOMALOUS = 3
_PAGE = 2000
_ONE_CONTENT = (
    "all normal scans have the same content, so none can be scored without itself: their scores are in-sample, "
    "and there is no AUROC, p-value or threshold"
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
        scorers: their names, first the one that ranks; `others` of each scan has the scores of the rest.
        scans: by score, highest first, then in order of submission; the rank is the position, from 1.
        normal_scores: (n,) the leave-one-out scores of the normals; none where all of them have one content.
        false_alarm_rate: the share of normal scans that the threshold may call anomalies.
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
    scorers: Sequence[str]
    scans: Iterable[RankedScan]
    normal_scores: ArrayLike
    false_alarm_rate: float
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
    comparison: Sequence[ScorerResult]
    decisions: Decisions
    warnings: Sequence[str]

    @property
    def evaluation(self) -> Evaluation:
        """Of the scorer that ranks."""
        return self.comparison[0].evaluation

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
        charts = _draw(data.scorers[0], findings)
        for name, chart in charts.items():
            (staging / f"{name}.png").write_bytes(chart)
        (staging / "report.html").write_text(render_page(data, findings, charts), encoding="utf-8")
        files = sorted([*(file.name for file in staging.iterdir()), "report.json"])
        document = json.dumps(_document(data, findings, files), indent=2, ensure_ascii=False, allow_nan=False)
        (staging / "report.json").write_text(document + "\n", encoding="utf-8", errors="backslashreplace")
    return findings


def _write_lists(data: ReportData, staging: Path) -> Findings:
    """Write the CSV files, and keep of their rows what the other files say of them."""
    ranking = Ranking(max(data.gallery_scans, _MOST_ANOMALOUS), data.scorers)
    failures, ignored = Excerpt[Failure](LISTED), Excerpt[IgnoredFile](LISTED)
    decisions = Decisions(data.normal_scores, data.false_alarm_rate)
    columns = (*SCORES_COLUMNS, *(f"score_{name}" for name in data.scorers[1:]))
    write_csv(staging / "scores.csv", columns, _ranked(ranking.passing(data.scans), decisions))
    failed = ((failure.path, failure.kind, failure.detail) for failure in failures.passing(data.failures))
    write_csv(staging / "failures.csv", FAILURES_COLUMNS, failed)
    left_out = ((file.path, file.reason) for file in ignored.passing(data.ignored))
    write_csv(staging / "ignored.csv", IGNORED_COLUMNS, left_out)
    # Without leave-one-out scores of the normals there is nothing honest to compare with.
    nothing = [ScorerResult(name, Evaluation(), None) for name in data.scorers]
    compared = ranking.comparison() if decisions.normals else nothing
    return Findings(ranking, failures, ignored, compared, decisions, _warnings(decisions))


def _ranked(scans: Iterable[RankedScan], decisions: Decisions) -> Iterator[tuple[Any, ...]]:
    """The rows of scores.csv, a page at a time: one by one, numpy would take most of it all."""
    iterator, rank = iter(scans), 0
    while page := list(islice(iterator, _PAGE)):
        p_values, predicted = decided(page, decisions)
        for scan, p_value, label in zip(page, p_values, predicted, strict=True):
            rank += 1
            yield (rank, *scan[:-1], p_value, label, *(pair.score for pair in scan.others))


def _warnings(decisions: Decisions) -> list[str]:
    if not decisions.normals:
        return [_ONE_CONTENT]
    if decisions.threshold is None:
        return [
            f"{decisions.normals} normal scans are too few for a false-alarm rate of "
            f"{decisions.false_alarm_rate:g}: the smallest p-value is {decisions.smallest_p:.3f}, so no scan is "
            "called an anomaly; take more normals, or a higher --false-alarm-rate"
        ]
    return []


def _draw(scorer: str, findings: Findings) -> dict[str, bytes]:
    """The charts, as PNG, by name; the curves only where there is something to draw."""
    groups = {group: findings.ranking.scores_of(group) for group in GROUPS}
    charts = {"histogram": draw_histogram(groups, findings.decisions.threshold, AXES[scorer])}
    evaluation = findings.evaluation
    if evaluation.roc is not None and evaluation.auroc is not None:
        charts["roc"] = draw_roc(evaluation.roc, evaluation.auroc.value)
    if evaluation.precision_recall is not None and evaluation.prevalence is not None:
        charts["precision_recall"] = draw_precision_recall(evaluation.precision_recall, evaluation.prevalence)
    return charts


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
        "scorer": data.scorers[0],
        "labels_note": data.labels_note,
        "counts": asdict(data.counts),
        **metrics(findings.evaluation),
        "decision": decision(findings),
        "scorers": comparison(findings),
        "timings": asdict(data.timings),
        "versions": dict(data.versions),
        "warnings": list(findings.warnings),
        "files": list(files),
    }


def metrics(evaluation: Evaluation) -> dict[str, Any]:
    """The metrics as report.json and the store have them: numbers, and beside them their 95 % intervals."""
    estimates = {
        "auroc": evaluation.auroc,
        "average_precision": evaluation.average_precision,
        "sensitivity_at_95_specificity": evaluation.sensitivity,
        "specificity_at_95_sensitivity": evaluation.specificity,
    }
    return {
        **{name: None if estimate is None else estimate.value for name, estimate in estimates.items()},
        "auroc_in_sample": evaluation.auroc_in_sample,
        "prevalence": evaluation.prevalence,
        "intervals": {name: _bounds(estimate) for name, estimate in estimates.items()},
    }


def comparison(findings: Findings) -> dict[str, Any]:
    """What each scorer is worth, by its name, with the difference to the one that ranks."""
    return {
        result.name: metrics(result.evaluation)
        | {"difference": None if result.difference is None else _difference(result.difference)}
        for result in findings.comparison
    }


def _difference(difference: Difference) -> dict[str, Any]:
    interval = difference.interval
    return {
        "auroc": difference.auroc,
        "interval": None if interval is None else list(astuple(interval)),
        "p_value": difference.p_value,
    }


def _bounds(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None or estimate.interval is None else list(astuple(estimate.interval))


def decision(findings: Findings) -> dict[str, Any] | None:
    """How scans are called anomalies, and how many are; None where no normal has a leave-one-out score."""
    decisions, ranking = findings.decisions, findings.ranking
    if not decisions.normals:
        return None
    threshold, interval = decisions.threshold, decisions.threshold_interval
    return {
        "false_alarm_rate": decisions.false_alarm_rate,
        "smallest_p_value": decisions.smallest_p,
        "threshold": threshold,
        "threshold_interval": None if interval is None else list(interval),
        "called_anomalies": {
            group: 0 if threshold is None else ranking.count_above(group, threshold) for group in GROUPS
        },
    }
