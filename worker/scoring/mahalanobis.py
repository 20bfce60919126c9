"""The distance to the normals' mean in units of their own spread (Mahalanobis, On the Generalised Distance in
Statistics, 1936), as Lee et al. use it on features of networks (NeurIPS 2018) and Rippel et al. without training
(ICPR 2020)."""

from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from sklearn.covariance import ledoit_wolf_shrinkage

from .scorer import Chunk, Scores, Units, Vectors, sample, unit_rows

_MOST_LEFT_OUT = 200
"""Up to so many normals, each unit of them is left out alone; of more, a tenth at a time."""
_FOLDS = 10
# Normals that are all equal have no spread; any distance from them is then a long one.
_LEAST_SPREAD = 1e-12


class MahalanobisScorer:
    """Scores a scan by its Mahalanobis distance to the mean of the normals' unit vectors.

        score(x) = √((x̂ − μ)ᵀ Σ⁻¹ (x̂ − μ)),      Σ = (1 − α) S + α (tr S / d) I

    S is the normals' covariance, and α Ledoit & Wolf's (Journal of Multivariate Analysis 88, 2004): it makes Σ one
    that can be inverted, and the best estimate in the mean square, also of fewer normals than dimensions. Of more
    than `MOST_NORMALS` normals a sample is kept.
    """

    name = "mahalanobis"

    def fit(self, chunks: Iterable[Chunk]) -> Self:
        """See `Scorer.fit`."""
        vectors, units = sample(chunks)
        self._normals = unit_rows(vectors)
        self._units = np.unique(units)
        self._number = len(self._units) if len(vectors) <= _MOST_LEFT_OUT else _FOLDS
        self._folds = self._folds_of(units)
        self._all = _Spread(self._normals)
        self._without: dict[int, _Spread] = {}
        return self

    def score(self, vectors: Vectors) -> Scores:
        """See `Scorer.score`."""
        return self._all.distances(unit_rows(vectors))

    def score_left_out(self, vectors: Vectors, units: Units) -> Scores:
        """See `Scorer.score_left_out`. Of more than 200 normals, a tenth of the units is left out with each."""
        rows, scores = unit_rows(vectors), np.empty(len(vectors))
        folds = self._folds_of(units)
        for fold in np.unique(folds):
            here = folds == fold
            scores[here] = self._spread_without(int(fold)).distances(rows[here])
        return scores

    def _folds_of(self, units: Units) -> Units:
        """The fold of each unit, (n,); -1 for a unit of which the sample has nothing."""
        place = np.clip(np.searchsorted(self._units, units), 0, len(self._units) - 1)
        return np.where(self._units[place] == units, place % self._number, -1)

    def _spread_without(self, fold: int) -> "_Spread":
        if fold < 0:
            return self._all
        if fold not in self._without:
            self._without[fold] = _Spread(self._normals[self._folds != fold])
        return self._without[fold]


class _Spread:
    """The mean and the shrunk covariance of unit vectors; of none, every distance is NaN."""

    def __init__(self, rows: NDArray[np.float64]) -> None:
        self._count, self._dimension = rows.shape
        if not self._count:
            return
        self._mean = rows.mean(axis=0)
        centred = rows - self._mean
        spread = max(float(np.square(centred).sum()) / self._count / self._dimension, _LEAST_SPREAD)
        shrinkage = ledoit_wolf_shrinkage(centred, assume_centered=True) if self._count > 1 else 1.0
        # Σ = ridge · I + AᵀA. Equal normals have no covariance to shrink.
        self._ridge = max(float(shrinkage) * spread, _LEAST_SPREAD)
        scaled = centred * np.sqrt((1 - shrinkage) / self._count)
        # The smaller of the two ways: few normals have a small AAᵀ (Woodbury's identity), many a smaller AᵀA.
        self._few: NDArray[np.float64] | None = scaled if self._count < self._dimension else None
        square = scaled @ scaled.T if self._few is not None else scaled.T @ scaled
        self._factor = cho_factor(square + self._ridge * np.eye(len(square)), lower=True)

    def distances(self, rows: NDArray[np.float64]) -> Scores:
        """(n, d) → (n,) float64."""
        if not self._count:
            return np.full(len(rows), np.nan)
        away = rows - self._mean
        if self._few is None:
            squares = np.einsum("nd,dn->n", away, cho_solve(self._factor, away.T))
        else:
            seen = self._few @ away.T
            squares = np.square(away).sum(axis=1) - np.einsum("kn,kn->n", seen, cho_solve(self._factor, seen))
            squares /= self._ridge
        distances: Scores = np.sqrt(np.maximum(squares, 0.0))
        return distances
