"""A job's stored vectors → scores, in the store."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..models.errors import JobFailedError
from ..models.records import Job, ScorePage, VectorPage
from ..models.scorers import PATCH_SCORERS
from ..models.states import Label
from ..models.store import Store
from .ahead import ahead
from .patches import unpack
from .scoring.centroid import CentroidScorer
from .scoring.knn import KnnScorer
from .scoring.mahalanobis import MahalanobisScorer
from .scoring.outline import Outline
from .scoring.patch_knn import MOST_NORMALS, PatchKnnScorer
from .scoring.scorer import Chunk, Scorer, Scores, Units, Vectors
from .scoring.text import PROMPTS, TextScorer


class JobScorer:
    """Scores the scans of a job, all of which are embedded."""

    def __init__(self, store: Store, job: Job, embed_texts: Callable[[Sequence[str]], Vectors]) -> None:
        """Args:
        store: the store.
        job: the job.
        embed_texts: the text tower of the job's encoder: k sentences → (k, dimension).
        """
        self._store = store
        self._job = job
        self._embed_texts = embed_texts

    def score(self, name: str) -> None:
        """Fit a scorer on the job's normals, score all its scans, and write the scores.

        Raises:
            JobFailedError: the job has not what the scorer compares.
            NoNormalsError: the job has no embedded normal scan.
            FloatingPointError: an embedding is not finite: `encoding` lets none into the store.
        """
        if name in PATCH_SCORERS and not self._job.encoder.patches:
            raise JobFailedError(
                f"job {self._job.id} has no patches: submit the scans again with --scorer {name}, which makes them"
            )
        units = self.outline.units
        scorer = self._make(name, units).fit(self._normals(name, units))
        looser: Scorer | None = None
        if self.outline.wider.any():
            copies = self.outline.copies
            looser = self._make(name, copies).fit(self._normals(name, copies))
        # Read, compute and write at the same time, each in a thread of its own.
        pages = self._pages(name)
        self._store.scores.save(name, ahead(self._score_page(scorer, looser, *page) for page in pages))

    def _make(self, name: str, units: Units) -> Scorer:
        makers: dict[str, Callable[[], Scorer]] = {
            "centroid": lambda: CentroidScorer(self.outline.shared(units)),
            "knn": KnnScorer,
            "mahalanobis": MahalanobisScorer,
            "patch_knn": PatchKnnScorer,
            "patch_knn_mirror": lambda: PatchKnnScorer(mirror=True),
            "text": lambda: TextScorer(*self._prompts),
        }
        return makers[name]()

    def _normals(self, name: str, units: Units) -> Iterator[Chunk]:
        if name in PATCH_SCORERS:
            yield from sampled_patches(self._store, self._job, self.outline, units)
            return
        for page in ahead(self._store.scores.vectors(self._job.id, Label.NORMAL)):
            yield Chunk(_matrix(page), units[self.outline.rows_of(page.scan_ids)])

    def _pages(self, name: str) -> Iterator[tuple[Sequence[int], NDArray[np.float32]]]:
        """Scans, and what a scorer compares of them."""
        if name in PATCH_SCORERS:
            for scans in ahead(self._store.scores.patches(self._job.id, self._job.encoder.patches_key)):
                yield scans.scan_ids, np.stack([unpack(packed) for packed in scans.patches])
        else:
            for page in ahead(self._store.scores.vectors(self._job.id)):
                yield page.scan_ids, _matrix(page)

    def _score_page(
        self, scorer: Scorer, looser: Scorer | None, scan_ids: Sequence[int], matrix: NDArray[np.float32]
    ) -> ScorePage:
        outline = self.outline
        rows = outline.rows_of(scan_ids)
        in_sample = scorer.score(matrix)
        scores = in_sample.copy()
        normals = np.flatnonzero(outline.are_normal[rows])
        # Where no normal of another unit is left, the report says so: see `Outline.can_leave_out`.
        scores[normals] = _left_out(scorer, matrix[normals], outline.units[rows[normals]], in_sample[normals])
        copies_out = np.full(len(rows), None)
        wider = np.flatnonzero(outline.are_normal[rows] & outline.wider[rows])
        if looser is not None:
            copies_out[wider] = _left_out(looser, matrix[wider], outline.copies[rows[wider]], in_sample[wider])
        return ScorePage(scan_ids, scores.tolist(), in_sample.tolist(), copies_out.tolist())

    @cached_property
    def _prompts(self) -> tuple[Vectors, Vectors]:
        """The embeddings of the sentences about normal and abnormal scans, from one text tower."""
        vectors = self._embed_texts([*PROMPTS["normal"], *PROMPTS["abnormal"]])
        return vectors[: len(PROMPTS["normal"])], vectors[len(PROMPTS["normal"]) :]

    @cached_property
    def outline(self) -> Outline:
        """The job's scans but for their vectors and scores. Read once."""
        return Outline.read(self._store.scores.outline(self._job.id))


def sampled_patches(store: Store, job: Job, outline: Outline, units: Units) -> Iterator[Chunk]:
    """The patches of the normals that patch scorers keep, with their units."""
    rows = outline.sampled_normals(MOST_NORMALS)
    scans = store.scores.named(outline.scan_ids[rows].tolist())
    packed = store.contents.patches([scan.sha256 for scan in scans], job.encoder)
    if scans:
        yield Chunk(np.stack([unpack(packed[scan.sha256]) for scan in scans]), units[rows])


def _left_out(scorer: Scorer, vectors: Vectors, units: Units, otherwise: Scores) -> Scores:
    """The scores of normals from the others, or what they have otherwise where no other is left."""
    scores = scorer.score_left_out(vectors, units)
    return np.where(np.isnan(scores), otherwise, scores)


def _matrix(page: VectorPage) -> NDArray[np.float32]:
    """(n, dimension) float32 from the stored bytes."""
    return np.frombuffer(page.vectors, dtype="<f4").reshape(len(page.scan_ids), -1)
