"""How sure a metric is: 95 % intervals, by DeLong's variance and by a stratified bootstrap."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

LEVEL = 0.95
ROUNDS = 1000
_MOST_STEPS = 2000
_ROUNDS_AT_ONCE = 50
_ROUNDING = 1e-9
_SEED = 0

Curve: TypeAlias = NDArray[np.float64]
GRID: Curve = np.linspace(0.0, 1.0, 101)
"""Where the bands of curves are worked out: false positive rates, or recalls."""


@dataclass(frozen=True)
class Interval:
    """Holds the metric of all scans like these in 95 % of the cases."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class DeLong:
    """AUROCs of scorers on the same scans, (k,), and their covariance, (k, k); both float64."""

    aurocs: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def interval(self, scorer: int) -> Interval | None:
        """Of one AUROC, cut at 0 and 1. None where a class has a single scan, which has no variance."""
        width = norm.ppf((1 + LEVEL) / 2) * np.sqrt(self.covariance[scorer, scorer])
        if not np.isfinite(width):
            return None
        low, high = np.clip([self.aurocs[scorer] - width, self.aurocs[scorer] + width], 0.0, 1.0)
        return Interval(float(low), float(high))

    def interval_of_difference(self, one: int, other: int) -> Interval | None:
        """Of the AUROC of one scorer minus another's. None where there is no variance to compare with."""
        width = norm.ppf((1 + LEVEL) / 2) * np.sqrt(max(self._variance(one, other), 0.0))
        if not np.isfinite(width):
            return None
        difference = self.aurocs[one] - self.aurocs[other]
        return Interval(float(difference - width), float(difference + width))

    def p_of_difference(self, one: int, other: int) -> float | None:
        """Two-sided p-value of two scorers being equally good; None where there is no variance to compare with."""
        difference, variance = self.aurocs[one] - self.aurocs[other], self._variance(one, other)
        if not np.isfinite(variance):
            return None
        if variance <= _ROUNDING**2:
            return 1.0 if abs(difference) <= _ROUNDING else 0.0
        return float(2 * norm.sf(abs(difference) / np.sqrt(variance)))

    def _variance(self, one: int, other: int) -> float:
        """Of the difference of two AUROCs; NaN where there is none."""
        covariance = self.covariance
        return float(covariance[one, one] + covariance[other, other] - 2 * covariance[one, other])


def delong(truth: ArrayLike, *scorers: ArrayLike) -> DeLong:
    """The AUROCs of one or more scorers, with the covariance that comes from which scans were drawn.

    DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988; computed from midranks (Sun & Xu, IEEE Signal Processing
    Letters 21, 2014) in O(n log n).

    Args:
        truth: (n,) bool, True for an anomaly; both classes are there.
        scorers: (n,) scores each; higher is more anomalous.
    """
    is_anomaly = np.asarray(truth, dtype=bool)
    anomalies, normals = np.count_nonzero(is_anomaly), np.count_nonzero(~is_anomaly)
    wins, losses = np.empty((len(scorers), anomalies)), np.empty((len(scorers), normals))
    for number, scorer in enumerate(scorers):
        scores = np.asarray(scorer, dtype=np.float64)
        ranks = rankdata(scores)
        # For each anomaly the share of normals below it; for each normal the share of anomalies above it.
        wins[number] = (ranks[is_anomaly] - rankdata(scores[is_anomaly])) / normals
        losses[number] = 1 - (ranks[~is_anomaly] - rankdata(scores[~is_anomaly])) / anomalies
    return DeLong(wins.mean(axis=1), _covariance(wins) / anomalies + _covariance(losses) / normals)


def _covariance(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    if shares.shape[1] < 2:
        return np.full((len(shares), len(shares)), np.nan)
    return np.atleast_2d(np.cov(shares))


@dataclass(frozen=True, eq=False)
class Steps:
    """How many anomalies and normals have each score, highest score first.

    The last axis is that of the scores; before it there may be one for the rounds of a bootstrap.
    """

    anomalies: NDArray[np.int64]
    normals: NDArray[np.int64]

    @classmethod
    def of(cls, scores: ArrayLike, truth: ArrayLike, most: int | None = None) -> Self:
        """Args:
        scores: (n,), higher is more anomalous.
        truth: (n,) bool, True for an anomaly.
        most: how many steps there may be: neighbours in the ranking are then taken together, as if they tied.
        """
        is_anomaly = np.asarray(truth, dtype=bool)
        _, step = np.unique(-np.asarray(scores, dtype=np.float64), return_inverse=True)
        steps = int(step.max()) + 1
        if most is not None and steps > most:
            step, steps = step * most // steps, most
        return cls(np.bincount(step[is_anomaly], minlength=steps), np.bincount(step[~is_anomaly], minlength=steps))

    def drawn(self, rounds: int, generator: np.random.Generator) -> "Steps":
        """As many anomalies and as many normals, drawn from these with replacement, `rounds` times."""
        return Steps(*(_drawn(counts, rounds, generator) for counts in (self.anomalies, self.normals)))

    @property
    def found(self) -> NDArray[np.float64]:
        """The share of anomalies at or above each score: the sensitivity, or recall."""
        return _shares(self.anomalies)

    @property
    def flagged(self) -> NDArray[np.float64]:
        """The share of normals at or above each score: the false positive rate."""
        return _shares(self.normals)

    @property
    def precision(self) -> NDArray[np.float64]:
        """The share of anomalies among the scans at or above each score; 0 where there are none."""
        found, flagged = np.cumsum(self.anomalies, axis=-1), np.cumsum(self.normals, axis=-1)
        precision: NDArray[np.float64] = found / np.maximum(found + flagged, 1)
        return precision


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.cumsum(counts, axis=-1) / counts.sum(axis=-1, keepdims=True)
    return shares


def _drawn(counts: NDArray[np.int64], rounds: int, generator: np.random.Generator) -> NDArray[np.int64]:
    total = counts.sum()
    return generator.multinomial(total, counts / total, size=rounds)


Statistic: TypeAlias = Callable[[Steps], NDArray[np.float64]]
"""One number, or one curve, for each round."""


def average_precision(steps: Steps) -> NDArray[np.float64]:
    """Σ (Rₙ − Rₙ₋₁) Pₙ, without interpolation."""
    gains = steps.anomalies / steps.anomalies.sum(axis=-1, keepdims=True)
    return np.asarray((gains * steps.precision).sum(axis=-1))


def auroc(steps: Steps) -> NDArray[np.float64]:
    """The share of (anomaly, normal) pairs in which the anomaly scores higher, ties counted half."""
    above = np.cumsum(steps.anomalies, axis=-1) - steps.anomalies / 2
    pairs = steps.anomalies.sum(axis=-1) * steps.normals.sum(axis=-1)
    return np.asarray((steps.normals * above).sum(axis=-1) / pairs)


def sensitivity_at(specificity: float) -> Statistic:
    """The largest sensitivity of a threshold that has at least this specificity."""

    def statistic(steps: Steps) -> NDArray[np.float64]:
        allowed = steps.flagged <= 1 - specificity + _ROUNDING
        return np.asarray(np.where(allowed, steps.found, 0.0).max(axis=-1))

    return statistic


def specificity_at(sensitivity: float) -> Statistic:
    """The largest specificity of a threshold that has at least this sensitivity."""

    def statistic(steps: Steps) -> NDArray[np.float64]:
        enough = steps.found >= sensitivity - _ROUNDING
        return np.asarray(1 - np.where(enough, steps.flagged, 1.0).min(axis=-1))

    return statistic


def roc_on_grid(steps: Steps) -> NDArray[np.float64]:
    """The sensitivity at each false positive rate of `GRID`."""
    found, flagged = np.atleast_2d(steps.found, steps.flagged)
    rows = []
    for up, right in zip(found, flagged, strict=True):
        last = np.searchsorted(right, GRID + _ROUNDING, side="right")
        rows.append(np.concatenate([[0.0], up])[last])
    return np.array(rows)


def precision_on_grid(steps: Steps) -> NDArray[np.float64]:
    """The precision at each recall of `GRID`: of the highest threshold that reaches it."""
    found, precision = np.atleast_2d(steps.found, steps.precision)
    rows = []
    for recall, shares in zip(found, precision, strict=True):
        first = np.searchsorted(recall, np.maximum(GRID, _ROUNDING) - _ROUNDING)
        rows.append(shares[np.minimum(first, len(shares) - 1)])
    return np.array(rows)


def bootstrap(scores: ArrayLike, truth: ArrayLike, **statistics: Statistic) -> dict[str, tuple[Curve, Curve]]:
    """The 2.5 and 97.5 percentiles of statistics over 1,000 draws of as many anomalies and as many normals.

    The stratified percentile bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993). The same
    scores give the same intervals. More than 2,000 different scores are taken together in 2,000 steps.

    Args:
        scores: (n,), higher is more anomalous.
        truth: (n,) bool, True for an anomaly; both classes are there.
        statistics: by name, what to compute of each draw.
    """
    steps = Steps.of(scores, truth, _MOST_STEPS)
    generator = np.random.default_rng(_SEED)
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in statistics}
    for _ in range(0, ROUNDS, _ROUNDS_AT_ONCE):  # so that memory does not grow with the rounds
        draw = steps.drawn(_ROUNDS_AT_ONCE, generator)
        for name, statistic in statistics.items():
            drawn[name].append(statistic(draw))
    outside = (1 - LEVEL) / 2
    found = {}
    for name, values in drawn.items():
        low, high = np.quantile(np.concatenate(values), [outside, 1 - outside], axis=0)
        found[name] = (low, high)
    return found
