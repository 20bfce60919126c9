"""From scores to decisions, by the normals alone: a p-value for each scan, and a threshold."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, false_discovery_control

from ...models.records import RankedScan
from ...models.states import Label

_LEVEL = 0.95


class Decisions:
    """Compares scores with those of the normals, each of which was scored without itself.

    A scan that is like the normals has each rank among them with the same probability, whatever the scores'
    distribution is: conformal p-values (Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005;
    for outliers Bates et al., Annals of Statistics 51, 2023).
    """

    def __init__(self, normal_scores: ArrayLike, false_alarm_rate: float, other_scores: ArrayLike = ()) -> None:
        """Args:
        normal_scores: (n,) leave-one-out scores of the normals, in any order; none where none has one. Then there
            are no p-values either.
        false_alarm_rate: the share of normal scans that may be called anomalies, in (0, 1).
        other_scores: (m,) of the scans that are not known to be normal, in any order.
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

        p_values = np.sort(self.p_values(other_scores, np.zeros(np.size(other_scores), dtype=bool)))
        self._tested: NDArray[np.float64] = p_values
        self._adjusted = false_discovery_control(p_values) if count and len(p_values) else np.empty(0)
        self.discoveries = int(np.count_nonzero(self._adjusted <= false_alarm_rate))
        """How many of the other scans have a q-value of at most the false-alarm rate."""

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

    def q_values(self, p_values: ArrayLike) -> NDArray[np.float64]:
        """The p-values of other scans, adjusted for their number: (n,) float64 in (0, 1].

        The share of false discoveries that is to be expected among the scans with a q-value of at most this one
        (Benjamini & Hochberg, J. Royal Statistical Society B 57, 1995; that it holds for conformal p-values, which
        share their normals: Bates et al.).
        """
        return np.asarray(self._adjusted[np.searchsorted(self._tested, np.asarray(p_values, dtype=np.float64))])

    def are_anomalies(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Which scans lie above the threshold: (n,) bool."""
        values = np.asarray(scores, dtype=np.float64)
        if self.threshold is None:
            return np.zeros(len(values), dtype=bool)
        return values > self.threshold


def q_values(
    scans: Sequence[RankedScan], p_values: Sequence[float | None], decisions: Decisions
) -> Sequence[float | None]:
    """The q-value of each scan; None for the normals, and where there are no p-values."""
    found: list[float | None] = [None] * len(scans)
    others = [
        (row, p_value)
        for row, (scan, p_value) in enumerate(zip(scans, p_values, strict=True))
        if scan.label is not Label.NORMAL and p_value is not None
    ]
    adjusted = decisions.q_values([p_value for _, p_value in others]).tolist()
    for (row, _), q_value in zip(others, adjusted, strict=True):
        found[row] = q_value
    return found


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
