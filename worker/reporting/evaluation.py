"""How well the scores tell the anomalies from the normals: scikit-learn does the maths."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve


@dataclass(frozen=True)
class Roc:
    """The points of a ROC curve, from (0, 0) to (1, 1): two arrays of one length, float64 in [0, 1]."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of one job. Every field is None when one of the two classes has no scored scan.

    `auroc`, `average_precision` and `roc` are the headline: each normal is scored against a reference that it
    did not help to build. `auroc_in_sample` lets it help, as the reference method does, and flatters.
    """

    auroc: float | None = None
    auroc_in_sample: float | None = None
    average_precision: float | None = None
    roc: Roc | None = None


def evaluate(scores: ArrayLike, scores_in_sample: ArrayLike, is_anomaly: ArrayLike) -> Evaluation:
    """Compare the scores with the labels.

    Args:
        scores: (n,) the headline scores (normals leave-one-out) of the *labelled* scans; higher is more anomalous.
        scores_in_sample: (n,) the scores against the reference of all normals.
        is_anomaly: (n,) bool, True for an anomaly and False for a normal.

    AUROC is the area under the ROC curve, ties counted half (Hanley & McNeil, Radiology 143, 1982); average
    precision is Σ (Rₙ − Rₙ₋₁) Pₙ over the thresholds, without interpolation.

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
    return Evaluation(
        auroc=float(roc_auc_score(truth, headline)),
        auroc_in_sample=float(roc_auc_score(truth, in_sample)),
        average_precision=float(average_precision_score(truth, headline)),
        roc=Roc(false_positive_rate, true_positive_rate),
    )
