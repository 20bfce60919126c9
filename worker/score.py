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

    @property
    def can_leave_out(self) -> bool:
        """Whether any normal is left when one is left out with its unit. If not, their scores are in-sample."""
        normals = self._units[self._are_normal]
        return bool(len(normals) and (normals != normals[0]).any())

    def _make(self, name: str) -> Scorer:
        makers: dict[str, Callable[[], Scorer]] = {
            "centroid": lambda: CentroidScorer(self._shared_units),
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
        # Where no normal of another unit is left, the report says that the scores are in-sample: `can_leave_out`.
        scores[normals] = np.where(np.isnan(left_out), in_sample[normals], left_out)
        return ScorePage(page.scan_ids, scores.tolist(), in_sample.tolist())

    def _units_of(self, page: VectorPage) -> NDArray[np.int64]:
        return self._units[np.searchsorted(self._scan_ids, page.scan_ids)]

    @cached_property
    def _outline(self) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.uint64]]:
        """Of all embedded scans, in order of submission: ids, whether they are normals, and contents."""
        columns: tuple[list[np.ndarray], ...] = ([], [], [])
        for page in self._store.scores.outline(self._job.id):
            columns[0].append(np.array(page.scan_ids, dtype=np.int64))
            columns[1].append(np.array(page.are_normal, dtype=bool))
            columns[2].append(np.array(page.contents, dtype=np.uint64))
        ids, normal, contents = (np.concatenate([np.empty(0, np.int64), *column]) for column in columns)
        return ids, normal.astype(bool), contents.astype(np.uint64)

    @property
    def _scan_ids(self) -> NDArray[np.int64]:
        return self._outline[0]

    @property
    def _are_normal(self) -> NDArray[np.bool_]:
        return self._outline[1]

    @cached_property
    def _units(self) -> NDArray[np.int64]:
        """The unit of each embedded scan; those with the most normals have the lowest numbers."""
        units = np.unique(self._outline[2], return_inverse=True)[1]
        normals = np.bincount(units[self._are_normal], minlength=units.max(initial=-1) + 1)
        return np.argsort(np.argsort(-normals, kind="stable"))[units]

    @property
    def _shared_units(self) -> int:
        """How many units have several normals."""
        return int(np.count_nonzero(np.bincount(self._units[self._are_normal]) > 1))


def _matrix(page: VectorPage) -> NDArray[np.float32]:
    """(n, dimension) float32 from the stored bytes."""
    return np.frombuffer(page.vectors, dtype="<f4").reshape(len(page.scan_ids), -1)
