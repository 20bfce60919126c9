"""The last step of a job: vectors → reference → scores → store → report."""

import logging
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import numpy as np
from numpy.typing import NDArray

from ..models.errors import JobFailedError
from ..models.patience import patiently
from ..models.records import Job, Progress, ScorePage, VectorPage
from ..models.settings import Settings
from ..models.states import JobState, Label
from ..models.store import Store
from .ahead import ahead
from .encoding.files import ScanFiles
from .encoding.images import ImageFailure, decode, thumbnail
from .reporting.report import ReportCounts, ReportData, ReportTimings, decision, metrics, write_report
from .scoring.centroid import CentroidScorer

logger = logging.getLogger(__name__)

_THUMBNAIL_PIXELS = 160
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

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

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
        self._score(job, self._fit(job))
        scoring_seconds = (datetime.now(UTC) - begun).total_seconds()
        folder = self._settings.local_path(job.report_folder)
        result = self._write_report(job, folder, scoring_seconds, datetime.now(UTC))
        if self._store.finish_job(job.id, result):
            logger.info("job %s: done, report in %s", job.id, job.report_folder)

    def rebuild(self, job_id: str, folder: Path | None = None) -> None:
        """Write the report of a done job again, from the scores in the store.

        Args:
            job_id: the job.
            folder: where to; None for the job's own folder.

        Raises:
            JobFailedError: the job is not done.
            ReportError: the folder cannot be written.
        """
        job = self._store.find_job(job_id)
        if job.state != JobState.DONE or job.result is None or job.finished_at is None:
            raise JobFailedError(f"job {job.id} is {job.state}: only a done job has a report")
        timings = job.result["timings"]
        self._write_report(
            job, folder or self._settings.local_path(job.report_folder), timings["scoring_seconds"], job.finished_at
        )

    def _fit(self, job: Job) -> CentroidScorer:
        scorer = CentroidScorer()
        pages = ahead(self._store.scores.vectors(job.id, Label.NORMAL))
        try:
            # An embedding that is not finite raises FloatingPointError: `encoding` lets none into the store.
            return scorer.fit((_matrix(page), page.contents) for page in pages)
        except ValueError:
            failure = next(self._store.scores.failures(job.id), None)
            first = f"; the first: {failure.path}: {failure.detail}" if failure else ""
            raise JobFailedError(
                f"none of the {job.normal} normal scans could be embedded, so there is no reference{first}"
            ) from None

    def _score(self, job: Job, scorer: CentroidScorer) -> None:
        """Read, compute and write at the same time, each in a thread of its own."""
        pages = ahead(self._store.scores.vectors(job.id))
        self._store.scores.save(ahead(_score_page(scorer, page) for page in pages))

    def _write_report(self, job: Job, folder: Path, scoring_seconds: float, now: datetime) -> dict[str, object]:
        """Write the report, and return what the store keeps of it."""
        progress = self._store.progress(job.id)
        timings = _timings(job, progress, scoring_seconds, now)
        files = ScanFiles(self._settings.local_path(job.root), job.follow_links, self._settings.max_file_bytes)
        data = ReportData(
            job_id=job.id,
            source=job.source,
            root=job.root,
            created_at=job.created_at,
            encoder_key=job.encoder.key,
            source_note=job.notes.get("source"),
            encoder_note=job.notes.get("encoder"),
            labels_note=job.notes.get("labels", ""),
            counts=_counts(job, progress),
            scans=self._store.scores.ranking(job.id),
            normal_scores=self._store.scores.normals(job.id),
            false_alarm_rate=job.false_alarm_rate,
            failures=self._store.scores.failures(job.id),
            ignored=self._store.scores.ignored(job.id),
            timings=timings,
            versions=_versions(),
            gallery_scans=self._settings.gallery_scans,
            thumbnail=lambda path: self._thumbnail(files, path),
        )
        findings = write_report(data, folder)
        return {
            **metrics(findings.evaluation),
            "decision": decision(findings),
            "timings": asdict(timings),
            "warnings": list(findings.warnings),
            "most_anomalous": [{"path": scan.path, "score": scan.score} for scan in findings.most_anomalous],
        }

    def _thumbnail(self, files: ScanFiles, path: str) -> bytes | None:
        try:
            return thumbnail(decode(files.read(path), self._settings.max_pixels), _THUMBNAIL_PIXELS)
        except ImageFailure:
            return None


def _score_page(scorer: CentroidScorer, page: VectorPage) -> ScorePage:
    matrix = _matrix(page)
    in_sample = scorer.score(matrix)
    scores = in_sample.copy()
    normals = [row for row, label in enumerate(page.labels) if label is Label.NORMAL]
    left_out = scorer.score_left_out(matrix[normals], [page.contents[row] for row in normals])
    # A NaN says that no normal of other content is left: `Ranking.one_content` finds that out for the report.
    scores[normals] = np.where(np.isnan(left_out), in_sample[normals], left_out)
    return ScorePage(page.scan_ids, scores.tolist(), in_sample.tolist())


def _matrix(page: VectorPage) -> NDArray[np.float32]:
    """(n, dimension) float32 from the stored bytes."""
    return np.frombuffer(page.vectors, dtype="<f4").reshape(len(page.scan_ids), -1)


def _counts(job: Job, progress: Progress) -> ReportCounts:
    return ReportCounts(
        scans=job.scans,
        normal=job.normal,
        anomaly=job.anomaly,
        unlabelled=job.scans - job.normal - job.anomaly,
        embedded=progress.embedded,
        failed=progress.failed,
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
