"""How well the scores tell the anomalies from the normals, and how sure that is: scikit-learn does the maths."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from . import intervals
from .intervals import Curve, Interval, Statistic, Steps

OPERATING_POINT = 0.95
"""The specificity that a sensitivity is told at, and the reverse."""


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % interval, which is None where the scans are too few to have one."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, eq=False)
class Roc:
    """The points of a ROC curve, from (0, 0) to (1, 1): two arrays of one length, float64 in [0, 1].

    `low` and `high` are the 95 % band of the true positive rate at the false positive rates of `GRID`.
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    low: Curve
    high: Curve


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """The precision at the recalls of `GRID`, and its 95 % band: (101,) float64 in [0, 1]."""

    precision: Curve
    low: Curve
    high: Curve


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of one job. Every field is None when one of the two classes has no scored scan.

    All but `auroc_in_sample` are of the headline: each normal is scored against a reference that it did not help to
    build. `auroc_in_sample` lets it help, as the reference method does, and flatters.
    """

    auroc: Estimate | None = None
    """Its interval is DeLong's."""
    auroc_in_sample: float | None = None
    auroc_copies_out: Estimate | None = None
    """Where only scans of the same content are left out with a normal: near-identical ones and its group stay."""
    average_precision: Estimate | None = None
    prevalence: float | None = None
    """The share of anomalies among the labelled scans: the average precision of a guess."""
    sensitivity: Estimate | None = None
    """At 95 % specificity."""
    specificity: Estimate | None = None
    """At 95 % sensitivity."""
    roc: Roc | None = None
    precision_recall: PrecisionRecall | None = None


@dataclass(frozen=True)
class Difference:
    """The AUROC of one scorer minus another's on the same scans, with DeLong's 95 % interval and two-sided p-value;
    these are None where a class has a single scan."""

    auroc: float
    interval: Interval | None
    p_value: float | None


@dataclass(frozen=True)
class ScorerResult:
    """What one of several scorers is worth; the first of them has no difference to itself."""

    name: str
    evaluation: Evaluation
    difference: Difference | None


def difference(scores: ArrayLike, others: ArrayLike, is_anomaly: ArrayLike) -> Difference | None:
    """How much better one scorer is than another on the same scans.

    Args:
        scores: (n,) of the one.
        others: (n,) of the other.
        is_anomaly: (n,) bool.

    Returns:
        None when one of the two classes has no scan.
    """
    truth = np.asarray(is_anomaly, dtype=bool)
    if truth.all() or not truth.any():
        return None
    both = intervals.delong(truth, scores, others)
    value = float(both.aurocs[0] - both.aurocs[1])
    return Difference(value, both.interval_of_difference(0, 1), both.p_of_difference(0, 1))


def evaluate(
    scores: ArrayLike,
    scores_in_sample: ArrayLike,
    is_anomaly: ArrayLike,
    scores_copies_out: ArrayLike | None = None,
) -> Evaluation:
    """Compare the scores with the labels.

    Args:
        scores: (n,) the headline scores (normals leave-one-out) of the *labelled* scans; higher is more anomalous.
        scores_in_sample: (n,) the scores against the reference of all normals.
        is_anomaly: (n,) bool, True for an anomaly and False for a normal.
        scores_copies_out: (n,) the scores where only copies are left out; None for the headline scores.

    AUROC is the area under the ROC curve, ties counted half (Hanley & McNeil, Radiology 143, 1982), with DeLong's
    interval; average precision is Σ (Rₙ − Rₙ₋₁) Pₙ over the thresholds, without interpolation. Its interval, and
    all others, are from a stratified bootstrap.

    Raises:
        ValueError: the lengths differ, or a score is NaN or infinite.
    """
    truth = np.asarray(is_anomaly, dtype=bool)
    headline = np.asarray(scores, dtype=np.float64)
    in_sample = np.asarray(scores_in_sample, dtype=np.float64)
    if not truth.shape == headline.shape == in_sample.shape:
        raise ValueError(f"{truth.size} labels came with {headline.size} and {in_sample.size} scores")
    if truth.all() or not truth.any():  # one class, or no scan at all
        return Evaluation()

    false_positive_rate, true_positive_rate, _ = roc_curve(truth, headline)
    at_sensitivity = intervals.specificity_at(OPERATING_POINT)
    at_specificity = intervals.sensitivity_at(OPERATING_POINT)
    statistics: dict[str, Statistic] = {
        "average_precision": intervals.average_precision,
        "sensitivity": at_specificity,
        "specificity": at_sensitivity,
        "roc": intervals.roc_on_grid,
        "precision": intervals.precision_on_grid,
    }
    drawn = intervals.bootstrap(headline, truth, **statistics)
    steps = Steps.of(headline, truth)

    def estimate(name: str, value: float) -> Estimate:
        low, high = drawn[name]
        return Estimate(float(value), Interval(float(low), float(high)))

    return Evaluation(
        auroc=_auroc(truth, headline),
        auroc_in_sample=float(roc_auc_score(truth, in_sample)),
        auroc_copies_out=_auroc(truth, headline if scores_copies_out is None else scores_copies_out),
        average_precision=estimate("average_precision", average_precision_score(truth, headline)),
        prevalence=float(truth.mean()),
        sensitivity=estimate("sensitivity", float(at_specificity(steps))),
        specificity=estimate("specificity", float(at_sensitivity(steps))),
        roc=Roc(false_positive_rate, true_positive_rate, *drawn["roc"]),
        precision_recall=PrecisionRecall(intervals.precision_on_grid(steps)[0], *drawn["precision"]),
    )


def _auroc(truth: NDArray[np.bool_], scores: ArrayLike) -> Estimate:
    return Estimate(float(roc_auc_score(truth, scores)), intervals.delong(truth, scores).interval(0))
