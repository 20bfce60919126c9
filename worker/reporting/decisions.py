"""From scores to decisions, by the normals alone: a p-value for each scan, and a threshold."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from ...models.records import RankedScan
from ...models.states import Label

_LEVEL = 0.95


class Decisions:
    """Compares scores with those of the normals, each of which was scored without itself.

    A scan that is like the normals has each rank among them with the same probability, whatever the scores'
    distribution is: conformal p-values (Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005;
    for outliers Bates et al., Annals of Statistics 51, 2023).
    """

    def __init__(self, normal_scores: ArrayLike, false_alarm_rate: float) -> None:
        """Args:
        normal_scores: (n,) leave-one-out scores of the normals, in any order; none where none has one. Then there
            are no p-values either.
        false_alarm_rate: the share of normal scans that may be called anomalies, in (0, 1).
        """
        self._normals: NDArray[np.float64] = np.sort(np.asarray(normal_scores, dtype=np.float64))
        self.false_alarm_rate = false_alarm_rate
        count = len(self._normals)
        self.normals = count
        self.smallest_p = 1 / (count + 1)
        """What a scan gets that scores higher than every normal."""
        # The 1e-9 is for rates such as 0.05 · 100, which are not whole in binary.
        self._allowed = math.floor(false_alarm_rate * (count + 1) + 1e-9) - 1
        self.threshold = float(self._normals[count - 1 - self._allowed]) if 0 <= self._allowed < count else None
        """Above which a scan is called an anomaly: its p-value is then at most the rate. None where the normals are
        too few for any p-value to be so small."""

    @property
    def threshold_interval(self) -> tuple[float | None, float | None] | None:
        """The 95 % interval of the quantile that the threshold estimates; None at an end beyond all normals.

        From order statistics (Conover, Practical Nonparametric Statistics, 1999): no distribution is assumed.
        """
        if self.threshold is None:
            return None
        count, share = len(self._normals), 1 - self.false_alarm_rate
        # The k-th smallest of n lies below the quantile with the probability that at least k of n do.
        low = int(binom.ppf((1 - _LEVEL) / 2, count, share))
        high = int(binom.ppf((1 + _LEVEL) / 2, count, share)) + 1
        return (
            float(self._normals[low - 1]) if low >= 1 else None,
            float(self._normals[high - 1]) if high <= count else None,
        )

    def p_values(self, scores: ArrayLike, are_normals: ArrayLike) -> NDArray[np.float64]:
        """How many scans like the normals score at least as high: (n,) float64 in (0, 1].

            p = (1 + number of normals scoring at least as high) / (number of normals + 1)

        A normal is compared with the other normals, so for it both numbers are one less.

        Args:
            scores: (n,).
            are_normals: (n,) bool, whether a scan is one of the normals.
        """
        own = np.asarray(are_normals, dtype=bool).astype(np.int64)
        count = len(self._normals)
        as_high = count - np.searchsorted(self._normals, np.asarray(scores, dtype=np.float64), side="left")
        p_values: NDArray[np.float64] = (1 + as_high - own) / (count + 1 - own)
        return p_values

    def are_anomalies(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Which scans lie above the threshold: (n,) bool."""
        values = np.asarray(scores, dtype=np.float64)
        if self.threshold is None:
            return np.zeros(len(values), dtype=bool)
        return values > self.threshold


def decided(
    scans: Sequence[RankedScan], decisions: Decisions
) -> tuple[Sequence[float | None], Sequence[Label | None]]:
    """The p-value and the predicted label of each scan; None where the normals are too few to say."""
    scores = [scan.score for scan in scans]
    p_values: Sequence[float | None] = [None] * len(scans)
    predicted: Sequence[Label | None] = [None] * len(scans)
    if decisions.normals:
        p_values = decisions.p_values(scores, [scan.label is Label.NORMAL for scan in scans]).tolist()
    if decisions.threshold is not None:
        predicted = [Label.ANOMALY if above else Label.NORMAL for above in decisions.are_anomalies(scores)]
    return p_values, predicted
