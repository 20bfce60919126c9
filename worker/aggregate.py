"""The last step of a job: vectors → reference → scores → store → report."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from ..models.errors import JobFailedError
from ..models.hiding import Hiding
from ..models.patience import patiently
from ..models.records import Job, Progress
from ..models.settings import Settings
from ..models.stages import WRITING_REPORT, scoring
from ..models.states import JobState
from ..models.store import Store
from .closeups import Closeups
from .encoding.files import open_files
from .encoding.images import thumbnail
from .encoding.opened import Pictures
from .reporting.document import comparison, decision, grouped, metrics, trivial
from .reporting.gallery import Looks
from .reporting.report import ReportCounts, ReportData, ReportTimings, write_report
from .score import JobScorer
from .scoring.scorer import NoNormalsError, Vectors

logger = logging.getLogger(__name__)

_THUMBNAIL_PIXELS = 160
_SLICE_PIXELS = 80
_PACKAGES = (
    "scanomaly",
    "torch",
    "open_clip_torch",
    "timm",
    "numpy",
    "scikit-learn",
    "pillow",
    "celery",
    "sqlalchemy",
)


class Aggregator:
    """Scores jobs and writes their reports."""

    def __init__(
        self, store: Store, settings: Settings, begins: Callable[[str, str], object] = lambda _job, _stage: None
    ) -> None:
        """Args:
        store: the store.
        settings: the settings.
        begins: told the job's id and what is begun for it, in words of `stages.py`.
        """
        self._store = store
        self._settings = settings
        self._begins = begins

    def aggregate(self, job_id: str, worker: str) -> None:
        """Score a job whose batches are all done, write its report and mark it as done.

        A call too many does nothing, and one that takes the place of a call that died starts over. So does this one
        when the store is away for a while.

        Args:
            job_id: the job.
            worker: the name of the worker that will hold the job.

        Raises:
            JobFailedError: no normal scan could be embedded.
            ReportError: the report folder cannot be written.
            StoreUnreachableError: the store was away for too long.
        """
        patiently(self._settings.store_seconds, lambda: self._aggregate(job_id, worker))

    def _aggregate(self, job_id: str, worker: str) -> None:
        job = self._store.begin_aggregate(job_id, worker, self._settings.max_attempts)
        if job is None:
            return
        begun = datetime.now(UTC)
        scorer = self._scorer(job)
        self._score(job, scorer, job.scorers)
        scoring_seconds = (datetime.now(UTC) - begun).total_seconds()
        folder = self._settings.local_path(job.report_folder)
        # A job that was done before is scored again: how long it took as a whole does not change.
        result = self._write_report(job, scorer, folder, scoring_seconds, job.finished_at or datetime.now(UTC))
        if self._store.finish_job(job.id, result):
            logger.info("job %s: done, report in %s", job.id, job.report_folder)

    def add_scorers(self, job_id: str, names: Sequence[str], headline: str | None = None) -> None:
        """Score a done job with more scorers, and write its report again.

        Args:
            job_id: the job.
            names: the scorers; scores that the job has of one are replaced.
            headline: the scorer that ranks the scans from now on; None for the one that does.

        Raises:
            JobFailedError: the job is not done.
            ReportError: the report's folder cannot be written.
        """
        job = self._done_job(job_id)
        scorer = self._scorer(job)
        self._score(job, scorer, names)
        order = dict.fromkeys([*([headline] if headline else []), *job.scorers, *names])
        folder, now = self._settings.local_path(job.report_folder), job.finished_at or datetime.now(UTC)
        job = replace(job, scorers=tuple(order))
        result = self._write_report(job, scorer, folder, _scoring_seconds(job), now)
        if not self._store.add_scorers(job.id, job.scorers, result):
            raise JobFailedError(f"job {job.id} was taken up again meanwhile: score it when it is done")

    def rebuild(self, job_id: str, folder: Path | None = None) -> None:
        """Write the report of a done job again, from the scores in the store.

        Args:
            job_id: the job.
            folder: where to; None for the job's own folder.

        Raises:
            JobFailedError: the job is not done.
            ReportError: the folder cannot be written.
        """
        job = self._done_job(job_id)
        folder, now = folder or self._settings.local_path(job.report_folder), job.finished_at or datetime.now(UTC)
        self._write_report(job, self._scorer(job), folder, _scoring_seconds(job), now)

    def _scorer(self, job: Job) -> JobScorer:
        return JobScorer(self._store, job, partial(self._embed_texts, job))

    def _embed_texts(self, job: Job, sentences: Sequence[str]) -> Vectors:
        from .encoding.encoder import load_text_tower  # torch: only where sentences are embedded

        spec = job.encoder.at(self._settings.local_path)
        return load_text_tower(spec, self._settings.hub_seconds)(sentences)

    def _done_job(self, job_id: str) -> Job:
        job = self._store.find_job(job_id)
        if job.state != JobState.DONE or job.result is None:
            raise JobFailedError(f"job {job.id} is {job.state}: only a done job has a report")
        return job

    def _score(self, job: Job, scorer: JobScorer, names: Sequence[str]) -> None:
        try:
            for number, name in enumerate(names):
                self._begins(job.id, scoring(names, number))
                scorer.score(name)
        except NoNormalsError:
            failure = next(self._store.scores.failures(job.id), None)
            hiding = Hiding(job.path_key)
            first = f"; the first: {hiding.path(failure.path)}: {failure.detail}" if failure else ""
            raise JobFailedError(
                f"none of the {job.normal} normal scans could be embedded, so there is no reference{first}"
            ) from None

    def _write_report(
        self, job: Job, scorer: JobScorer, folder: Path, scoring_seconds: float, now: datetime
    ) -> dict[str, object]:
        """Write the report, and return what the store keeps of it."""
        self._begins(job.id, WRITING_REPORT)
        progress = self._store.progress(job.id)
        timings = _timings(job, progress, scoring_seconds, now)
        files = open_files(job.root, job.follow_links, self._settings)
        pictures = Pictures(files, job.intensity, self._settings.max_pixels)
        closeups = Closeups(self._store, job, scorer.outline)
        can_leave_out = scorer.outline.can_leave_out
        data = ReportData(
            job_id=job.id,
            source=job.source,
            root=job.root,
            created_at=job.created_at,
            encoder_key=job.encoder.key,
            source_note=job.notes.get("source"),
            encoder_note=job.notes.get("encoder"),
            labels_note=job.notes.get("labels", ""),
            groups_note=job.notes.get("groups"),
            counts=_counts(job, progress),
            scorers=job.scorers,
            scans=self._store.scores.ranking(job.id, job.scorers),
            outline=scorer.outline,
            named=self._store.scores.named,
            normal_scores=self._store.scores.of_normals(job.id, job.scorers[0]) if can_leave_out else (),
            other_scores=self._store.scores.of_others(job.id, job.scorers[0]),
            false_alarm_rate=job.false_alarm_rate,
            failures=self._store.scores.failures(job.id),
            ignored=self._store.scores.ignored(job.id),
            timings=timings,
            versions=_versions(),
            gallery_scans=self._settings.gallery_scans,
            looks=Looks(
                thumbnail=lambda path: _thumbnail(pictures, path, _THUMBNAIL_PIXELS),
                small=lambda path: _thumbnail(pictures, path, _SLICE_PIXELS),
                nearest=closeups.nearest,
                heat_maps=closeups.heat_maps,
            ),
            slices=partial(self._store.scores.slices, job.id, job.scorers[0]),
            embedding_map=closeups.embedding_map(),
            hiding=Hiding(job.path_key),
        )
        findings = write_report(data, folder)
        return {
            **metrics(findings.evaluation),
            "decision": decision(findings),
            "scorers": comparison(findings),
            "shortcuts": trivial(findings),
            "groups": grouped(findings.groups),
            "volumes": grouped(findings.volumes),
            "timings": asdict(timings),
            "warnings": list(findings.warnings),
            "most_anomalous": [{"path": scan.path, "score": scan.score} for scan in findings.most_anomalous],
        }


def _thumbnail(pictures: Pictures, path: str, pixels: int) -> bytes | None:
    picture = pictures.picture(path)
    return None if picture is None else thumbnail(picture, pixels)


def _scoring_seconds(job: Job) -> float:
    seconds: float = (job.result or {})["timings"]["scoring_seconds"]
    return seconds


def _counts(job: Job, progress: Progress) -> ReportCounts:
    return ReportCounts(
        scans=job.scans,
        normal=job.normal,
        anomaly=job.anomaly,
        unlabelled=job.scans - job.normal - job.anomaly,
        embedded=progress.embedded,
        failed=progress.failed,
        skipped=progress.skipped,
        ignored=job.ignored,
    )


def _timings(job: Job, progress: Progress, scoring_seconds: float, now: datetime) -> ReportTimings:
    embedding = 0.0
    if progress.started_at is not None and progress.last_at is not None:
        embedding = (progress.last_at - progress.started_at).total_seconds()
    return ReportTimings(
        embedding_seconds=round(embedding, 3),
        scoring_seconds=round(scoring_seconds, 3),
        total_seconds=round((now - job.created_at).total_seconds(), 3),
        scans_encoded=progress.encoded,
    )


def _versions() -> dict[str, str]:
    return {"python": python_version()} | {package: version(package) for package in _PACKAGES}
