"""The reference method: the cosine distance to the mean of the normal scans.

The distance to the centroid of the normal class is the nearest-centroid rule (Tibshirani et al., "Diagnosis of
multiple cancer types by shrunken centroids of gene expression", PNAS 99, 2002; here without shrinking), used
with one class. Leaving a sample out by downdating the sum is the usual closed form of leave-one-out.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .scorer import Chunk, NoNormalsError, Scores, Units, Vectors, unit_rows

# A mean of unit vectors that is shorter than this points nowhere: rounding decides its direction.
_SHORTEST_REFERENCE = 1e-9
_BLOCK_ROWS = 256


class CentroidScorer:
    """Scores a scan by its cosine distance to the mean of the normals' unit vectors.

        r = (1/N) Σ xᵢ / ‖xᵢ‖  over the N normals,      score(x) = 1 − x·r / (‖x‖ ‖r‖)

    A score lies in [0, 2]; 0 is the direction of the reference. Only sums and counts stay in memory: one of all
    normals, and one of each unit that has several. The sums are float64: neither the size nor the order of the
    chunks changes a score by more than 1e-6.
    """

    name = "centroid"

    def __init__(self, shared_units: int = 0) -> None:
        """`shared_units`: the units 0, 1, … below it may have several normals; every other has one at most."""
        self._shared = shared_units
        self._sum: NDArray[np.float64] | None = None

    def fit(self, chunks: Iterable[Chunk]) -> Self:
        """See `Scorer.fit`. One vector that is not finite would make every score NaN."""
        self._sum, self._count = None, 0
        self._unit_counts = np.zeros(self._shared, dtype=np.int64)
        for vectors, units in chunks:
            _check_lengths(vectors, units)
            if len(vectors):
                self._add(vectors, units)
        if self._sum is None:
            raise NoNormalsError("there are no normal scans to build a reference from")
        return self

    def _add(self, vectors: Vectors, units: Units) -> None:
        chunk_sum = np.zeros(vectors.shape[1])
        for block in _blocks(vectors):
            # Row by row onto the sum so far: the same additions, in the same order, as without blocks.
            chunk_sum = np.vstack([chunk_sum, unit_rows(block)]).sum(axis=0)
        if not np.isfinite(chunk_sum).all():
            raise FloatingPointError("the embedding of a normal scan holds NaN or infinity")
        if self._sum is None:
            self._sum = np.zeros_like(chunk_sum)
            self._unit_sums = np.zeros((self._shared, vectors.shape[1]))
        self._sum = self._sum + chunk_sum
        self._count += len(vectors)
        shared = units < self._shared
        np.add.at(self._unit_sums, units[shared], unit_rows(vectors[shared]))
        np.add.at(self._unit_counts, units[shared], 1)

    def score(self, vectors: Vectors) -> Scores:
        """The distance of each vector to the reference, shape (n, d) → (n,) float64 in [0, 2].

        A reference of length zero (normals that cancel out) is at distance 1 from everything.
        """
        total = self._fitted_sum()
        return np.concatenate(
            [
                _distances(units, np.broadcast_to(total, units.shape), np.full(len(units), self._count))
                for units in map(unit_rows, _blocks(vectors))
            ]
        )

    def score_left_out(self, vectors: Vectors, units: Units) -> Scores:
        """The distance of each normal to the reference of those of other units, (n, d) and (n,) → (n,) float64.

        A normal that helped to build the reference lies too close to it. So all normals of its unit U are left out
        together. That is exact, and O(d) a scan, from the sums:

            r′ ∝ S − Σ xᵢ / ‖xᵢ‖  over the normals of U

        NaN where every normal is in one unit and nothing is left.

        Raises:
            ValueError: the two arguments differ in length.
        """
        _check_lengths(vectors, units)
        pairs = zip(_blocks(vectors), _blocks(units), strict=True)
        return np.concatenate([self._left_out(unit_rows(rows), own) for rows, own in pairs])

    def _left_out(self, rows: NDArray[np.float64], units: Units) -> Scores:
        total = self._fitted_sum()
        sums, counts = rows.copy(), np.ones(len(rows), dtype=np.int64)
        shared = units < self._shared
        sums[shared], counts[shared] = self._unit_sums[units[shared]], self._unit_counts[units[shared]]
        remaining = self._count - counts
        return np.where(remaining > 0, _distances(rows, total - sums, remaining), np.nan)

    def _fitted_sum(self) -> NDArray[np.float64]:
        if self._sum is None:
            raise RuntimeError("CentroidScorer.score was called before fit")
        return self._sum


def _blocks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The rows in blocks that the processor's cache holds in float64; one, if empty, in any case."""
    for start in range(0, max(len(rows), 1), _BLOCK_ROWS):
        yield rows[start : start + _BLOCK_ROWS]


def _check_lengths(vectors: Vectors, units: Units) -> None:
    if len(vectors) != len(units):
        raise ValueError(f"{len(vectors)} vectors came with {len(units)} units")


def _distances(
    units: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.integer]
) -> NDArray[np.float64]:
    """1 − cos(unit, sum) row by row; 1 where the mean, sum / count, points nowhere."""
    lengths = np.linalg.norm(sums, axis=1)
    nowhere = lengths < _SHORTEST_REFERENCE * np.maximum(counts, 1)
    cosines = np.einsum("nd,nd->n", units, sums) / np.where(nowhere, 1.0, lengths)
    return np.clip(1.0 - np.where(nowhere, 0.0, cosines), 0.0, 2.0)
