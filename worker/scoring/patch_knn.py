"""The distance of each patch to the nearest patches of the normals (Cohen & Hoshen, Sub-Image Anomaly Detection
with Deep Pyramid Correspondences, 2020; Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR
2022)."""

from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .scorer import Chunk, Scores, Units, Vectors, sample

MOST_NORMALS = 500
"""Normals whose patches are kept; of more, a random sample."""
NEIGHBOURS = 3
WORST = 3


class PatchKnnScorer:
    """Scores a scan by those of its patches that are least like any patch of the normals.

        d(p, i) = min ‖p − q‖ over the patches q of the normal i
        a(p)    = (1/3) Σ d(p, i)  over the 3 normals i that it is least for
        score   = (1/3) Σ a(p)     over the 3 patches p that it is greatest for,      0 ≤ score ≤ 2

    Patches have length 1. `mirror` puts beside each patch its difference from the patch at the mirrored place, left
    for right: then what one side has and the other has not stands out, in pictures of what is nearly symmetric. The
    score is at most 2 √5 then.
    """

    def __init__(self, mirror: bool = False) -> None:
        self.name = "patch_knn_mirror" if mirror else "patch_knn"
        self._mirror = mirror

    def fit(self, chunks: Iterable[Chunk]) -> Self:
        """See `Scorer.fit`. Vectors are patches of length 1: (n, rows, columns, channels) float32."""
        patches, self._units = sample(chunks, MOST_NORMALS)
        described = self._described(patches)
        self._count, self._places, channels = described.shape
        self._bank = described.reshape(-1, channels)
        self._squares = np.einsum("pc,pc->p", self._bank, self._bank)
        return self

    def score(self, vectors: Vectors) -> Scores:
        """See `Scorer.score`. (n, rows, columns, channels) → (n,)."""
        # No unit is negative, so nobody is left out.
        return self.score_left_out(vectors, np.full(len(vectors), -1))

    def score_left_out(self, vectors: Vectors, units: Units) -> Scores:
        """See `Scorer.score_left_out`."""
        worst = [np.sort(found.ravel())[-WORST:].mean() for found in self._anomalies(vectors, units)]
        return np.array(worst, dtype=np.float64)

    def heat_maps(self, vectors: Vectors, units: Units) -> NDArray[np.float64]:
        """a(p) of each patch, from the normals of other units: (n, rows, columns, channels) → (n, rows, columns).

        NaN where no normal of another unit is left. A unit of -1 leaves nobody out.
        """
        return np.array([*self._anomalies(vectors, units)]).reshape(vectors.shape[:3])

    def _anomalies(self, vectors: Vectors, units: Units) -> Iterator[NDArray[np.float64]]:
        for patches, unit in zip(self._described(vectors), units, strict=True):
            others = self._units != unit
            if not others.any():
                yield np.full(len(patches), np.nan)
                continue
            products = patches @ self._bank.T
            squares = self._squares - 2 * products + np.einsum("pc,pc->p", patches, patches)[:, np.newaxis]
            of_normals = squares.reshape(len(patches), self._count, self._places).min(axis=2)[:, others]
            count = min(NEIGHBOURS, of_normals.shape[1])
            nearest = np.partition(of_normals, count - 1, axis=1)[:, :count]
            yield np.sqrt(np.maximum(nearest, 0).astype(np.float64)).mean(axis=1)

    def _described(self, patches: Vectors) -> NDArray[np.float32]:
        """(n, places, channels), or twice the channels where the mirrored place counts."""
        described = np.asarray(patches, dtype=np.float32)
        if self._mirror:
            described = np.concatenate([described, described - described[:, :, ::-1]], axis=3)
        count, rows, columns, channels = described.shape
        return described.reshape(count, rows * columns, channels)
