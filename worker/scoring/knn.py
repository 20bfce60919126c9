"""The distance to the nearest normals (Ramaswamy, Rastogi & Shim, Efficient Algorithms for Mining Outliers from
Large Data Sets, SIGMOD 2000; the mean of k distances is Angiulli & Pizzuti's, PKDD 2002)."""

from collections.abc import Iterable
from typing import Self

import numpy as np

from .scorer import Chunk, Scores, Units, Vectors, sample, unit_rows

NEIGHBOURS = 5
_BLOCK_ROWS = 256


class KnnScorer:
    """Scores a scan by its mean cosine distance to the 5 nearest normals.

        score(x) = (1/5) Σ (1 − x·nᵢ / (‖x‖ ‖nᵢ‖))  over the 5 normals nᵢ nearest to x,      0 ≤ score ≤ 2

    Of more than `MOST_NORMALS` normals a sample is kept; where there are fewer than 5, all count.
    """

    name = "knn"

    def fit(self, chunks: Iterable[Chunk]) -> Self:
        """See `Scorer.fit`."""
        vectors, self._units = sample(chunks)
        self._normals = unit_rows(vectors)
        return self

    def score(self, vectors: Vectors) -> Scores:
        """See `Scorer.score`. A normal finds itself, at distance 0."""
        # No unit is negative, so nobody is left out.
        return self.score_left_out(vectors, np.full(len(vectors), -1))

    def score_left_out(self, vectors: Vectors, units: Units) -> Scores:
        """See `Scorer.score_left_out`."""
        blocks = range(0, len(vectors), _BLOCK_ROWS)
        parts = [self._score(vectors[row : row + _BLOCK_ROWS], units[row : row + _BLOCK_ROWS]) for row in blocks]
        return np.concatenate([np.empty(0), *parts])

    def _score(self, vectors: Vectors, units: Units) -> Scores:
        distances = np.clip(1.0 - unit_rows(vectors) @ self._normals.T, 0.0, 2.0)
        distances[units[:, np.newaxis] == self._units] = np.inf
        count = min(NEIGHBOURS, distances.shape[1])
        nearest = np.partition(distances, count - 1, axis=1)[:, :count]
        found = np.isfinite(nearest)
        with np.errstate(invalid="ignore"):  # none is left: 0 / 0
            means: Scores = np.where(found, nearest, 0.0).sum(axis=1) / found.sum(axis=1)
        return means
