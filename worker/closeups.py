"""What the report shows of single scans beside their scores: the nearest normal, a heat map, a place on the map."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from ..models.records import Job, NamedScan
from ..models.scorers import PATCH_SCORERS
from ..models.store import Store
from .patches import unpack
from .reporting.embedding_map import EmbeddingMap, MapPoint
from .score import sampled_patches
from .scoring.outline import Outline
from .scoring.patch_knn import PatchKnnScorer
from .scoring.scorer import unit_rows

_MOST_NEIGHBOURS = 5000
_MOST_POINTS = 1000


class _Normals(NamedTuple):
    scans: list[NamedScan]
    units: NDArray[np.int64]
    vectors: NDArray[np.float32]
    """(n, dimension), rows of length 1."""


class Closeups:
    """Looks closer at scans of a job. Nothing is read before it is asked for."""

    def __init__(self, store: Store, job: Job, outline: Outline) -> None:
        self._store = store
        self._job = job
        self._outline = outline

    def nearest(self, digests: Sequence[str]) -> list[NamedScan | None]:
        """The normal nearest to each content by cosine, its own unit left out; None where no other is left.

        Of more than 5,000 normals, those of a random sample are looked at.
        """
        normals, known = self._normals, self._vectors(digests)
        found: list[NamedScan | None] = []
        for digest, unit in zip(digests, self._units(digests), strict=True):
            similar = normals.vectors @ known[digest]
            similar[normals.units == unit] = -np.inf
            best = int(np.argmax(similar)) if len(similar) else 0
            found.append(normals.scans[best] if len(similar) and np.isfinite(similar[best]) else None)
        return found

    def heat_maps(self, digests: Sequence[str]) -> list[NDArray[np.float64] | None]:
        """How unusual each place is: (rows, columns) for each content, as the first patch scorer of the job has it.

        None where the job has no such scorer, or nothing is left to compare with.
        """
        name = next((name for name in self._job.scorers if name in PATCH_SCORERS), None)
        if name is None or not self._job.encoder.patches:
            return [None] * len(digests)
        normals = sampled_patches(self._store, self._job, self._outline, self._outline.units)
        scorer = PatchKnnScorer(mirror=name == "patch_knn_mirror").fit(normals)
        packed = self._store.contents.patches(digests, self._job.encoder)
        found = []
        for digest, unit in zip(digests, self._units(digests), strict=True):
            heat = scorer.heat_maps(unpack(packed[digest])[np.newaxis], np.array([unit]))[0]
            found.append(heat if np.isfinite(heat).all() else None)
        return found

    def embedding_map(self) -> EmbeddingMap:
        """The embeddings' two principal components; of more than 1,000 scans, those of a random sample."""
        ids = self._outline.scan_ids
        rows = np.sort(np.random.default_rng(0).permutation(len(ids))[:_MOST_POINTS])
        scans = self._store.scores.named(ids[rows].tolist())
        vectors = self._vectors([scan.sha256 for scan in scans])
        matrix = unit_rows(np.array([vectors[scan.sha256] for scan in scans]))
        if len(matrix) < 2 or np.ptp(matrix, axis=0).max() == 0:
            return EmbeddingMap([], 0.0, len(ids))
        components = PCA(2, random_state=0)
        places = components.fit_transform(matrix)
        points = [MapPoint(scan, *place) for scan, place in zip(scans, places.tolist(), strict=True)]
        return EmbeddingMap(points, float(components.explained_variance_ratio_.sum()), len(ids))

    def _units(self, digests: Sequence[str]) -> list[int]:
        return [self._outline.unit_of(digest) for digest in digests]

    def _vectors(self, digests: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        stored = self._store.contents.vectors(digests, self._job.encoder)
        return {digest: np.frombuffer(vector, "<f4") for digest, vector in stored.items()}

    @cached_property
    def _normals(self) -> _Normals:
        rows = self._outline.sampled_normals(_MOST_NEIGHBOURS)
        scans = self._store.scores.named(self._outline.scan_ids[rows].tolist())
        vectors = self._vectors([scan.sha256 for scan in scans])
        matrix = np.array([vectors[scan.sha256] for scan in scans], dtype=np.float32).reshape(len(scans), -1)
        return _Normals(scans, self._outline.units[rows], matrix)
