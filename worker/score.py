"""A job's stored vectors → scores, in the store."""

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..models.records import Job, ScorePage, VectorPage
from ..models.states import Label
from ..models.store import Store
from .ahead import ahead
from .scoring.centroid import CentroidScorer
from .scoring.knn import KnnScorer
from .scoring.mahalanobis import MahalanobisScorer
from .scoring.outline import Outline
from .scoring.scorer import Chunk, Scorer


class JobScorer:
    """Scores the scans of a job, all of which are embedded."""

    def __init__(self, store: Store, job: Job) -> None:
        self._store = store
        self._job = job

    def score(self, name: str) -> None:
        """Fit a scorer on the job's normals, score all its scans, and write the scores.

        Raises:
            ValueError: the job has no embedded normal scan.
            FloatingPointError: an embedding is not finite: `encoding` lets none into the store.
        """
        scorer = self._make(name).fit(self._normals())
        # Read, compute and write at the same time, each in a thread of its own.
        pages = ahead(self._store.scores.vectors(self._job.id))
        self._store.scores.save(name, ahead(self._score_page(scorer, page) for page in pages))

    def _make(self, name: str) -> Scorer:
        makers: dict[str, Callable[[], Scorer]] = {
            "centroid": lambda: CentroidScorer(self.outline.shared_units),
            "knn": KnnScorer,
            "mahalanobis": MahalanobisScorer,
        }
        return makers[name]()

    def _normals(self) -> Iterator[Chunk]:
        for page in ahead(self._store.scores.vectors(self._job.id, Label.NORMAL)):
            yield Chunk(_matrix(page), self._units_of(page))

    def _score_page(self, scorer: Scorer, page: VectorPage) -> ScorePage:
        matrix = _matrix(page)
        in_sample = scorer.score(matrix)
        scores = in_sample.copy()
        normals = [row for row, label in enumerate(page.labels) if label is Label.NORMAL]
        left_out = scorer.score_left_out(matrix[normals], self._units_of(page)[normals])
        # Where no normal of another unit is left, the report says so: see `Outline.can_leave_out`.
        scores[normals] = np.where(np.isnan(left_out), in_sample[normals], left_out)
        return ScorePage(page.scan_ids, scores.tolist(), in_sample.tolist())

    def _units_of(self, page: VectorPage) -> NDArray[np.int64]:
        return self.outline.units[self.outline.rows_of(page.scan_ids)]

    @cached_property
    def outline(self) -> Outline:
        """The job's scans but for their vectors and scores. Read once."""
        return Outline.read(self._store.scores.outline(self._job.id))


def _matrix(page: VectorPage) -> NDArray[np.float32]:
    """(n, dimension) float32 from the stored bytes."""
    return np.frombuffer(page.vectors, dtype="<f4").reshape(len(page.scan_ids), -1)
