"""The reference method: the cosine distance to the mean of the normal scans.

The distance to the centroid of the normal class is the nearest-centroid rule (Tibshirani et al., "Diagnosis of
multiple cancer types by shrunken centroids of gene expression", PNAS 99, 2002; here without shrinking), used
with one class. Leaving a sample out by downdating the sum is the usual closed form of leave-one-out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32] | NDArray[np.float64]
Scores = NDArray[np.float64]

# A mean of unit vectors that is shorter than this points nowhere: rounding decides its direction.
_SHORTEST_REFERENCE = 1e-9
_BLOCK_ROWS = 256


class CentroidScorer:
    """Scores a scan by its cosine distance to the mean of the normals' unit vectors.

        r = (1/N) Σ xᵢ / ‖xᵢ‖  over the N normals,      score(x) = 1 − x·r / (‖x‖ ‖r‖)

    A score lies in [0, 2]; 0 is the direction of the reference. Only the sum, the count and the count per
    content stay in memory, whatever the number of normals. The sum is float64: neither the size nor the order
    of the chunks changes a score by more than 1e-6.
    """

    name = "centroid"

    def __init__(self) -> None:
        self._sum: NDArray[np.float64] | None = None
        self._count = 0
        self._per_content: Counter[str] = Counter()

    def fit(self, chunks: Iterable[tuple[Vectors, Sequence[str]]]) -> Self:
        """Read the normals once and keep their reference.

        Args:
            chunks: pairs of vectors, shape (n, d), float32 or float64, and the n SHA-256 digests of the
                images' contents. n may differ between chunks and may be 0.

        Raises:
            ValueError: there are no normals, or a chunk's two parts differ in length.
            FloatingPointError: a vector is not finite; one such would make every score NaN.
        """
        self._sum, self._count, self._per_content = None, 0, Counter()
        for vectors, contents in chunks:
            if len(vectors) != len(contents):
                raise ValueError(f"{len(vectors)} vectors came with {len(contents)} content digests")
            if len(vectors):
                self._add(vectors, contents)
        if self._sum is None:
            raise ValueError("there are no normal scans to build a reference from")
        return self

    def _add(self, vectors: Vectors, contents: Sequence[str]) -> None:
        chunk_sum = np.zeros(vectors.shape[1])
        for block in _blocks(vectors):
            # Row by row onto the sum so far: the same additions, in the same order, as without blocks.
            chunk_sum = np.vstack([chunk_sum, _unit(block)]).sum(axis=0)
        if not np.isfinite(chunk_sum).all():
            raise FloatingPointError("the embedding of a normal scan holds NaN or infinity")
        self._sum = chunk_sum if self._sum is None else self._sum + chunk_sum
        self._count += len(vectors)
        self._per_content.update(contents)

    def score(self, vectors: Vectors) -> Scores:
        """The distance of each vector to the reference, shape (n, d) → (n,) float64 in [0, 2].

        A reference of length zero (normals that cancel out) is at distance 1 from everything.
        """
        total = self._fitted_sum()
        return np.concatenate(
            [
                _distances(units, np.broadcast_to(total, units.shape), np.full(len(units), self._count))
                for units in map(_unit, _blocks(vectors))
            ]
        )

    def score_left_out(self, vectors: Vectors, contents: Sequence[str]) -> Scores:
        """The distance of each normal to the reference of all *other* normals, (n, d) → (n,) float64.

        A normal that helped to build the reference lies too close to it. So all k normals of the same content
        as x are left out together. That is exact, and O(d) a scan, from the sum S:

            r′ ∝ S − k · x / ‖x‖

        NaN where every normal has this one content and nothing is left; a content that is not among the
        normals has k = 0, which is `score`.

        Raises:
            ValueError: the two arguments differ in length.
        """
        if len(vectors) != len(contents):
            raise ValueError(f"{len(vectors)} vectors came with {len(contents)} content digests")
        total = self._fitted_sum()
        left_out = np.array([self._per_content[content] for content in contents], dtype=np.int64)
        remaining = self._count - left_out
        distances = np.concatenate(
            [
                _distances(units, total - left_out_here[:, np.newaxis] * units, self._count - left_out_here)
                for units, left_out_here in zip(map(_unit, _blocks(vectors)), _blocks(left_out), strict=True)
            ]
        )
        return np.where(remaining > 0, distances, np.nan)

    def _fitted_sum(self) -> NDArray[np.float64]:
        if self._sum is None:
            raise RuntimeError("CentroidScorer.score was called before fit")
        return self._sum


def _blocks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The rows in blocks that the processor's cache holds in float64; one, if empty, in any case."""
    for start in range(0, max(len(rows), 1), _BLOCK_ROWS):
        yield rows[start : start + _BLOCK_ROWS]


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    """Rows of length 1 in float64 (float32 rows are off by 1e-7); a row of zeros stays one."""
    rows = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1.0, lengths)


def _distances(
    units: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.integer]
) -> NDArray[np.float64]:
    """1 − cos(unit, sum) row by row; 1 where the mean, sum / count, points nowhere."""
    lengths = np.linalg.norm(sums, axis=1)
    nowhere = lengths < _SHORTEST_REFERENCE * np.maximum(counts, 1)
    cosines = np.einsum("nd,nd->n", units, sums) / np.where(nowhere, 1.0, lengths)
    return np.clip(1.0 - np.where(nowhere, 0.0, cosines), 0.0, 2.0)
