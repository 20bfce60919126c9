"""What a report says, and its writing: the data that aggregation hands over, and the files made from it."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import ArrayLike

from ...models.hiding import Hiding
from ...models.records import Failure, IgnoredFile, NamedScan, RankedScan
from ...models.states import FailureKind
from ..scoring.outline import Outline
from .concealed import concealed, concealed_scans
from .decisions import Decisions, decided, q_values
from .document import document
from .duplicates import DuplicateGroup, Duplicates, find_duplicates
from .embedding_map import EmbeddingMap
from .evaluation import Evaluation, ScorerResult
from .files import ParquetCopy, whole_folder, write_csv
from .gallery import Looks
from .groups import GroupScores
from .page import LISTED, render_page
from .plots import Chart, draw_histogram, draw_precision_recall, draw_roc
from .ranking import GROUPS, Excerpt, Ranking
from .shortcuts import Shortcut, overlapping, shortcuts
from .volumes import VOLUMES_LISTED, Slices, VolumeRow
from .wording import AXES

SCORES_COLUMNS = {
    "rank": pa.int64(),
    "path": pa.string(),
    "label": pa.string(),
    "score": pa.float64(),
    "score_in_sample": pa.float64(),
    "sha256": pa.string(),
    "p_value": pa.float64(),
    "predicted": pa.string(),
    "group": pa.string(),
    "q_value": pa.float64(),
    "volume": pa.string(),
}
FAILURES_COLUMNS = ("path", "kind", "detail")
IGNORED_COLUMNS = ("path", "reason")
DUPLICATES_COLUMNS = ("number", "kind", "path", "label", "sha256")
GROUPS_COLUMNS = ("group", "label", "scans", "score_max", "score_mean_top_3")
VOLUMES_COLUMNS = ("volume", "group", "label", "scans", "score_max", "score_mean_top_3")

_MOST_ANOMALOUS = 3
_PAGE = 2000
_DUPLICATES_SHOWN = 20
_MEMBERS_SHOWN = 8
_NOTHING_TO_LEAVE_OUT = (
    "all normal scans show the same picture or are of one group, so none can be scored without itself: their "
    "scores are in-sample, and there is no AUROC, p-value or threshold"
)


@dataclass(frozen=True)
class ReportCounts:
    """How many scans the job has, by label and by outcome, and how many files were no scans (`ignored`). What was
    skipped are empty slices."""

    scans: int
    normal: int
    anomaly: int
    unlabelled: int
    embedded: int
    failed: int
    skipped: int
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
        groups_note: how the groups were found; None where none were asked for.
        scorers: their names, first the one that ranks; `others` of each scan has the scores of the rest.
        scans: by score, highest first, then in order of submission; the rank is the position, from 1.
        outline: the same scans, in order of submission.
        named: scan ids → what lists say of these scans.
        normal_scores: (n,) the leave-one-out scores of the normals; none where all of them have one content.
        other_scores: (m,) the scores of the scans that are not known to be normal, in any order.
        false_alarm_rate: the share of normal scans that the threshold may call anomalies.
        versions: package name → version.
        gallery_scans: how many scans the page shows from the top of the ranking; some others come with them.
        looks: how the gallery gets what it shows.
        slices: finds the slices of volumes, for the strips of the first ones.
        embedding_map: where scans lie beside one another.
        hiding: how paths are hidden in all files of the report. All paths here are the real ones.
    """

    job_id: str
    source: str
    root: str
    created_at: datetime
    encoder_key: str
    source_note: str | None
    encoder_note: str | None
    labels_note: str
    groups_note: str | None
    counts: ReportCounts
    scorers: Sequence[str]
    scans: Iterable[RankedScan]
    outline: Outline
    named: Callable[[Sequence[int]], Sequence[NamedScan]]
    normal_scores: ArrayLike
    other_scores: ArrayLike
    false_alarm_rate: float
    failures: Iterable[Failure]
    ignored: Iterable[IgnoredFile]
    timings: ReportTimings
    versions: Mapping[str, str]
    gallery_scans: int
    looks: Looks
    slices: Slices
    embedding_map: EmbeddingMap
    hiding: Hiding

    def __post_init__(self) -> None:
        if self.created_at.tzinfo is None:
            raise ValueError("created_at has no time zone")


@dataclass(frozen=True)
class ShownDuplicates:
    """A group of duplicates as the page shows it: with its first scans."""

    group: DuplicateGroup
    scans: Sequence[NamedScan]


@dataclass(frozen=True, eq=False)
class Findings:
    """What the lists of a report come to when all of them have been written."""

    ranking: Ranking
    """Its scans have their real paths, which may have to be hidden."""
    most_anomalous: Sequence[RankedScan]
    failures: Excerpt[Failure]
    ignored: Excerpt[IgnoredFile]
    comparison: Sequence[ScorerResult]
    decisions: Decisions
    shortcuts: Sequence[Shortcut]
    duplicates: Duplicates
    duplicates_shown: Sequence[ShownDuplicates]
    groups: GroupScores | None
    volumes: GroupScores | None
    volumes_listed: Sequence[VolumeRow]
    failure_kinds: Mapping[FailureKind, int]

    @cached_property
    def overlap(self) -> Shortcut | None:
        """The trait alone that the scorer which ranks is not clearly better than."""
        auroc = self.evaluation.auroc
        return None if auroc is None else overlapping(self.shortcuts, auroc)

    @cached_property
    def warnings(self) -> Sequence[str]:
        return list(_warnings(self))

    @property
    def evaluation(self) -> Evaluation:
        """Of the scorer that ranks."""
        return self.comparison[0].evaluation


def write_report(data: ReportData, folder: Path) -> Findings:
    """Write the report into `folder`, whole or not at all: `docs/report.md` describes its files.

    Raises:
        ReportError: the folder holds something else than a report, or cannot be written.
    """
    data = concealed(data)
    with whole_folder(folder) as staging:
        findings = _write_lists(data, staging)
        charts = _draw(data.scorers[0], findings)
        for name, chart in charts.items():
            (staging / f"{name}.png").write_bytes(chart.png)
        (staging / "report.html").write_text(render_page(data, findings, charts), encoding="utf-8")
        files = sorted([*(file.name for file in staging.iterdir()), "report.json"])
        text = json.dumps(document(data, findings, files), indent=2, ensure_ascii=False, allow_nan=False)
        (staging / "report.json").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return findings


def _write_lists(data: ReportData, staging: Path) -> Findings:
    """Write the CSV files, and keep of their rows what the other files say of them."""
    ranking = Ranking(max(data.gallery_scans, _MOST_ANOMALOUS), data.scorers)
    failures, ignored = Excerpt[Failure](LISTED), Excerpt[IgnoredFile](LISTED)
    decisions = Decisions(data.normal_scores, data.false_alarm_rate, data.other_scores)
    columns = SCORES_COLUMNS | {f"score_{name}": pa.float64() for name in data.scorers[1:]}
    scores = ParquetCopy(staging / "scores.parquet", columns)
    scans = concealed_scans(ranking.passing(data.scans), data.hiding)
    rows = scores.passing(_ranked(scans, decisions))
    write_csv(staging / "scores.csv", list(columns), rows)
    kinds: Counter[FailureKind] = Counter()
    write_csv(staging / "failures.csv", FAILURES_COLUMNS, _failed(failures.passing(data.failures), kinds))
    left_out = ((file.path, file.reason) for file in ignored.passing(data.ignored))
    write_csv(staging / "ignored.csv", IGNORED_COLUMNS, left_out)
    # Without leave-one-out scores of the normals there is nothing honest to compare with.
    nothing = [ScorerResult(name, Evaluation(), None) for name in data.scorers]
    compared = ranking.comparison() if decisions.normals else nothing
    duplicates = find_duplicates(data.outline)
    write_csv(staging / "duplicates.csv", DUPLICATES_COLUMNS, _duplicates(duplicates, data.named))
    groups, volumes, listed = ranking.groups(), ranking.volumes(), Excerpt[VolumeRow](VOLUMES_LISTED)
    if groups is not None:
        write_csv(staging / "groups.csv", GROUPS_COLUMNS, _grouped(groups, ranking, data.hiding))
    if volumes is not None:
        of_volumes = listed.passing(_volumes(volumes, ranking, data.hiding))
        write_csv(staging / "volumes.csv", VOLUMES_COLUMNS, ((*row[:-1], *row.pooled) for row in of_volumes))
    if not decisions.normals:
        groups, volumes = (pooled and pooled.unmeasured() for pooled in (groups, volumes))
    return Findings(
        ranking=ranking,
        most_anomalous=list(concealed_scans(ranking.first[:_MOST_ANOMALOUS], data.hiding)),
        failures=failures,
        ignored=ignored,
        comparison=compared,
        decisions=decisions,
        shortcuts=shortcuts(data.outline),
        duplicates=duplicates,
        duplicates_shown=_shown(duplicates, data.named),
        groups=groups,
        volumes=volumes,
        volumes_listed=listed.first,
        failure_kinds=kinds,
    )


def _failed(failures: Iterable[Failure], kinds: Counter[FailureKind]) -> Iterator[tuple[Any, ...]]:
    for failure in failures:
        kinds[failure.kind] += 1
        yield (failure.path, failure.kind, failure.detail)


def _ranked(scans: Iterable[RankedScan], decisions: Decisions) -> Iterator[tuple[Any, ...]]:
    """The rows of scores.csv, a page at a time: one by one, numpy would take most of it all."""
    iterator, rank = iter(scans), 0
    while page := list(islice(iterator, _PAGE)):
        p_values, predicted = decided(page, decisions)
        adjusted = q_values(page, p_values, decisions)
        for scan, p_value, label, q_value in zip(page, p_values, predicted, adjusted, strict=True):
            rank += 1
            others = [pair.score for pair in scan.others]
            yield (rank, *scan[:5], p_value, label, scan.group, q_value, scan.volume, *others)


def _duplicates(
    duplicates: Duplicates, named: Callable[[Sequence[int]], Sequence[NamedScan]]
) -> Iterator[tuple[Any, ...]]:
    """The rows of duplicates.csv. Names are asked for in pages: there may be as many groups as scans."""
    members = (
        (number, group.kind, scan_id)
        for number, group in enumerate(duplicates.groups, start=1)
        for scan_id in group.scan_ids.tolist()
    )
    while page := list(islice(members, _PAGE)):
        scans = named([scan_id for _, _, scan_id in page])
        for (number, kind, _), scan in zip(page, scans, strict=True):
            yield (number, kind, scan.path, scan.label, scan.sha256)


def _shown(duplicates: Duplicates, named: Callable[[Sequence[int]], Sequence[NamedScan]]) -> list[ShownDuplicates]:
    return [
        ShownDuplicates(group, named(group.scan_ids[:_MEMBERS_SHOWN].tolist()))
        for group in duplicates.groups[:_DUPLICATES_SHOWN]
    ]


def _grouped(groups: GroupScores, ranking: Ranking, hiding: Hiding) -> Iterator[tuple[Any, ...]]:
    names = ranking.group_names
    for number, pooled in groups.rows():
        yield (hiding.name(names[number], "group"), *pooled)


def _volumes(volumes: GroupScores, ranking: Ranking, hiding: Hiding) -> Iterator[VolumeRow]:
    names, groups = ranking.volume_names, ranking.groups_of_volumes()
    for number, pooled in volumes.rows():
        name, group = hiding.name(names[number], "volume"), groups[number]
        yield VolumeRow(name, group and hiding.name(group, "group"), pooled)


def _warnings(findings: Findings) -> Iterator[str]:
    decisions, shortcut, across = findings.decisions, findings.overlap, findings.duplicates.across
    if not decisions.normals:
        yield _NOTHING_TO_LEAVE_OUT
    elif decisions.threshold is None:
        yield (
            f"{decisions.normals} normal scans are too few for a false-alarm rate of "
            f"{decisions.false_alarm_rate:g}: the smallest p-value is {decisions.smallest_p:.3f}, so no scan is "
            "called an anomaly; take more normals, or a higher --false-alarm-rate"
        )
    if shortcut is not None:
        auroc = findings.evaluation.auroc
        better = auroc is not None and auroc.value > shortcut.auroc.value
        well = "almost as well" if better else "at least as well"
        of_scores = "" if auroc is None else f" ({auroc.value:.3f})"
        yield (
            f"{shortcut.name[0].upper()}{shortcut.name[1:]} alone separates the classes {well} "
            f"({shortcut.auroc.value:.3f}) as the scores{of_scores}: normal and anomalous scans may have been made "
            "or saved in different ways, and the scores may tell that"
        )
    if across:
        first = findings.duplicates_shown[0].scans
        groups = "group" if len(across) == 1 else "groups"
        yield (
            f"{len(across)} {groups} of identical or nearly identical scans with both labels, such as that of "
            f"{first[0].path}: duplicates.csv lists them; is each label right?"
        )


def _draw(scorer: str, findings: Findings) -> dict[str, Chart]:
    """The charts by name; the curves only where there is something to draw."""
    groups = {group: findings.ranking.scores_of(group) for group in GROUPS}
    charts = {"histogram": draw_histogram(groups, findings.decisions.threshold, AXES[scorer])}
    evaluation = findings.evaluation
    if evaluation.roc is not None and evaluation.auroc is not None:
        charts["roc"] = draw_roc(evaluation.roc, evaluation.auroc.value)
    if evaluation.precision_recall is not None and evaluation.prevalence is not None:
        charts["precision_recall"] = draw_precision_recall(evaluation.precision_recall, evaluation.prevalence)
    return charts
