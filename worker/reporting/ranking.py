"""What a report keeps of the rows that pass by on their way into its CSV files; there may be millions."""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...models.records import RankedScan
from ...models.states import Label
from .evaluation import ScorerResult, difference, evaluate
from .groups import GroupScores, group_scores

_T = TypeVar("_T")

_PAGE = 2000
_EXTRA = 40
"""How many scans of each further kind are shown beside the first."""
GROUPS: dict[str, Label | None] = {"normal": Label.NORMAL, "anomaly": Label.ANOMALY, "unlabelled": None}
_CODES = {label: code for code, label in enumerate(GROUPS.values())}


class Excerpt(Generic[_T]):
    """The first `size` rows, and how many there are. All are there when `passing` has come to its end."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.first: list[_T] = []
        self.total = 0

    def passing(self, rows: Iterable[_T]) -> Iterator[_T]:
        for row in rows:
            if self.total < self._size:
                self.first.append(row)
            self.total += 1
            yield row


class Place(NamedTuple):
    """A scan and its rank, from 1."""

    rank: int
    scan: RankedScan


class _Columns(NamedTuple):
    scores: "array[float]"
    in_sample: "array[float]"
    copies_out: "array[float]"


class Ranking:
    """The first scans of the ranking, and of every one its label, scores and group.

    That is 1 byte a scan, 24 a scorer, and 8 where there are groups.
    """

    def __init__(self, shown: int, scorers: Sequence[str]) -> None:
        """Keep the first `shown` scans of a ranking by the first of `scorers`."""
        self._shown = shown
        self._rng = np.random.default_rng(0)
        self._sample: list[tuple[float, Place]] = []
        self._highest_normals: list[Place] = []
        self._lowest_anomalies: deque[Place] = deque(maxlen=_EXTRA)
        self._names = scorers
        self.first: list[RankedScan] = []
        self._columns = [_Columns(array("d"), array("d"), array("d")) for _ in scorers]
        self._labels = array("b")
        self._groups = array("q")
        self._numbers: dict[str, int] = {}

    def passing(self, scans: Iterable[RankedScan]) -> Iterator[RankedScan]:
        """The same scans, in their order: highest score first."""
        iterator = iter(scans)
        while page := list(islice(iterator, _PAGE)):
            self._take(page)
            yield from page

    def _take(self, page: list[RankedScan]) -> None:
        self._keep([Place(rank, scan) for rank, scan in enumerate(page, len(self._labels) + 1)])
        _, labels, scores, in_sample, _, groups, copies_out, others, _ = zip(*page, strict=True)
        of_all = [
            (scores, in_sample, copies_out),
            *(tuple(zip(*one, strict=True)) for one in zip(*others, strict=True)),
        ]
        for kept, (scores, in_sample, copies_out) in zip(self._columns, of_all, strict=True):
            kept.scores.extend(scores)
            kept.in_sample.extend(in_sample)
            # Nearly all are the same as the score.
            kept.copies_out.extend(
                score if other is None else other for score, other in zip(scores, copies_out, strict=True)
            )
        self._labels.extend([_CODES[label] for label in labels])
        if self._numbers or any(groups):
            self._group_all(groups)

    def _keep(self, places: list[Place]) -> None:
        self.first += [place.scan for place in places[: self._shown - len(self.first)]]
        room = _EXTRA - len(self._highest_normals)
        if room:
            normals = (place for place in places if place.scan.label is Label.NORMAL)
            self._highest_normals += islice(normals, room)
        anomalies = (place for place in reversed(places) if place.scan.label is Label.ANOMALY)
        self._lowest_anomalies.extend(reversed(list(islice(anomalies, _EXTRA))))
        # Each scan draws a number, and the lowest numbers stay.
        draws = self._rng.random(len(places))
        lowest = np.argsort(draws)[:_EXTRA]
        self._sample = sorted([*self._sample, *((draws[n], places[n]) for n in lowest)])[:_EXTRA]

    def shown(self) -> list[Place]:
        """The first scans, the highest normals, the lowest anomalies and a sample of all, by rank, none twice."""
        first = [Place(rank, scan) for rank, scan in enumerate(self.first[: self._shown], 1)]
        extra = [*self._highest_normals, *self._lowest_anomalies, *(place for _, place in self._sample)]
        return [place for _, place in sorted({place.rank: place for place in (*first, *extra)}.items())]

    def _group_all(self, names: Sequence[str | None]) -> None:
        before = len(self._labels) - len(names)
        self._groups.extend([-1] * (before - len(self._groups)))
        for name in names:
            self._groups.append(-1 if name is None else self._numbers.setdefault(name, len(self._numbers)))

    @property
    def total(self) -> int:
        return len(self._labels)

    def scores_of(self, group: str) -> NDArray[np.float64]:
        """The scores of a group of `GROUPS`, highest first: (n,)."""
        return self._scores(0)[0][self._labelled(group)]

    def count(self, group: str) -> int:
        return int(np.count_nonzero(self._labelled(group)))

    def count_above(self, group: str, threshold: float) -> int:
        return int(np.count_nonzero(self.scores_of(group) > threshold))

    def comparison(self) -> list[ScorerResult]:
        """How well each scorer tells anomalies from normals, the one that ranks first."""
        labelled = ~self._labelled("unlabelled")
        truth = self._labelled("anomaly")[labelled]
        results = []
        for number, name in enumerate(self._names):
            scores, in_sample, copies_out = (column[labelled] for column in self._scores(number))
            found = evaluate(scores, in_sample, truth, copies_out)
            first = self._scores(0)[0][labelled]
            results.append(ScorerResult(name, found, difference(scores, first, truth) if number else None))
        return results

    def groups(self) -> GroupScores | None:
        """The scores of the groups by the first scorer; None where no scan has a group."""
        if not self._numbers:
            return None
        numbers = np.frombuffer(self._groups, np.int64)
        return group_scores(numbers, self._scores(0)[:2], self._labelled("normal"), self._labelled("anomaly"))

    @property
    def group_names(self) -> list[str]:
        """By the numbers that `groups` gives."""
        return list(self._numbers)

    def _scores(self, scorer: int) -> list[NDArray[np.float64]]:
        """The headline scores of a scorer, those in-sample, and those with only copies left out."""
        return [np.frombuffer(column, np.float64) for column in self._columns[scorer]]

    def _labelled(self, group: str) -> NDArray[np.bool_]:
        return np.asarray(np.frombuffer(self._labels, np.int8) == _CODES[GROUPS[group]])
