"""From the scores of scans to those of groups: of patients, say, and of volumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...models.states import Label
from .evaluation import Evaluation, evaluate

POOLINGS = ("max", "mean_top_3")
"""How the scores of a group's scans become one: the highest, or the mean of the three highest."""
_TOP = 3


class PooledRow(NamedTuple):
    """What lists say of a group or volume besides its name."""

    label: Label | None
    scans: int
    score_max: float
    score_mean_top_3: float


@dataclass(frozen=True, eq=False)
class GroupScores:
    """g groups that have a scored scan, highest `max` first.

    Attributes:
        numbers: (g,) int64, of the groups.
        sizes: (g,) int64, scored scans in each.
        are_normal: (g,) bool, whether all scans of a group are normal.
        are_anomalies: (g,) bool, whether a scan of a group is an anomaly.
        scores: by the names of `POOLINGS`, (g,) float64.
        evaluations: by the names of `POOLINGS`.
    """

    numbers: NDArray[np.int64]
    sizes: NDArray[np.int64]
    are_normal: NDArray[np.bool_]
    are_anomalies: NDArray[np.bool_]
    scores: dict[str, NDArray[np.float64]]
    evaluations: dict[str, Evaluation]

    def unmeasured(self) -> "GroupScores":
        """The same without metrics: where the normals' scores are in-sample, these would flatter."""
        return replace(self, evaluations={name: Evaluation() for name in POOLINGS})

    def rows(self) -> Iterator[tuple[int, PooledRow]]:
        """The number of each group, and what lists say of it."""
        columns = (self.numbers, self.sizes, self.are_normal, self.are_anomalies, *self.scores.values())
        for number, size, normal, anomalous, *scores in zip(*(column.tolist() for column in columns), strict=True):
            label = Label.ANOMALY if anomalous else Label.NORMAL if normal else None
            yield number, PooledRow(label, size, *scores)


def group_scores(
    groups: NDArray[np.int64],
    scores: Sequence[NDArray[np.float64]],
    are_normal: NDArray[np.bool_],
    are_anomalies: NDArray[np.bool_],
) -> GroupScores:
    """Pool the scores of n scans by group.

    Args:
        groups: (n,) the number of each scan's group; -1 for a scan of none, which is left out.
        scores: two times (n,): the headline scores, and those in-sample.
        are_normal: (n,) bool.
        are_anomalies: (n,) bool.
    """
    grouped = groups >= 0
    groups, are_normal, are_anomalies = groups[grouped], are_normal[grouped], are_anomalies[grouped]
    numbers, of_scan, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    normal = np.bincount(of_scan, are_normal, len(numbers)) == sizes
    anomalous = np.bincount(of_scan, are_anomalies, len(numbers)) > 0
    headline, in_sample = (_pooled(of_scan, column[grouped], sizes) for column in scores)
    labelled = normal | anomalous
    evaluations = {
        name: evaluate(headline[name][labelled], in_sample[name][labelled], anomalous[labelled])
        for name in POOLINGS
    }
    order = np.argsort(-headline["max"], kind="stable")
    return GroupScores(
        numbers[order],
        sizes[order],
        normal[order],
        anomalous[order],
        {name: values[order] for name, values in headline.items()},
        evaluations,
    )


def _pooled(
    of_scan: NDArray[np.int64], scores: NDArray[np.float64], sizes: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    if not len(scores):
        return {name: np.empty(0) for name in POOLINGS}
    order = np.lexsort((-scores, of_scan))
    starts = np.cumsum(sizes) - sizes
    is_top = np.arange(len(scores)) - starts[of_scan[order]] < _TOP
    sums = np.add.reduceat(np.where(is_top, scores[order], 0.0), starts)
    return {"max": scores[order][starts], "mean_top_3": sums / np.minimum(sizes, _TOP)}
