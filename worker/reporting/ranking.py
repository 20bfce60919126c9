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


class _Numbered:
    """Names by numbers, from 0 in the order in which they come. Takes nothing as long as no scan has a name."""

    def __init__(self) -> None:
        self._of_scans = array("q")
        self.names: dict[str, int] = {}

    def take(self, names: Sequence[str | None], before: int) -> None:
        """Number the names of the next scans, before which there were so many."""
        if not self.names and not any(names):
            return
        self._of_scans.extend([-1] * (before - len(self._of_scans)))
        for name in names:
            self._of_scans.append(-1 if name is None else self.names.setdefault(name, len(self.names)))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(n,), -1 for a scan that has no name; none at all where no scan has one."""
        return np.frombuffer(self._of_scans, np.int64)


class Ranking:
    """The first scans of the ranking, and of every one its label, scores, group and volume.

    That is 1 byte a scan, 24 a scorer, 8 where there are groups, and 8 where there are volumes.
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
        self._groups = _Numbered()
        self._volumes = _Numbered()

    def passing(self, scans: Iterable[RankedScan]) -> Iterator[RankedScan]:
        """The same scans, in their order: highest score first."""
        iterator = iter(scans)
        while page := list(islice(iterator, _PAGE)):
            self._take(page)
            yield from page

    def _take(self, page: list[RankedScan]) -> None:
        self._keep([Place(rank, scan) for rank, scan in enumerate(page, len(self._labels) + 1)])
        _, labels, scores, in_sample, _, groups, copies_out, others, volumes = zip(*page, strict=True)
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
        self._groups.take(groups, len(self._labels))
        self._volumes.take(volumes, len(self._labels))
        self._labels.extend([_CODES[label] for label in labels])

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
        return self._pooled(self._groups)

    def volumes(self) -> GroupScores | None:
        """The same for volumes."""
        return self._pooled(self._volumes)

    @property
    def group_names(self) -> list[str]:
        """By the numbers that `groups` gives."""
        return list(self._groups.names)

    @property
    def volume_names(self) -> list[str]:
        """By the numbers that `volumes` gives."""
        return list(self._volumes.names)

    @property
    def groups_are_volumes(self) -> bool:
        """Whether each group is one volume, and each volume a group."""
        # Both are numbered as they come, so what is grouped alike is numbered alike.
        return bool(self._groups.names) and np.array_equal(self._groups.numbers, self._volumes.numbers)

    def groups_of_volumes(self) -> list[str | None]:
        """The group of each volume's highest scan, by the numbers that `volumes` gives."""
        if not self._groups.names:
            return [None] * len(self._volumes.names)
        _, highest = np.unique(self._volumes.numbers, return_index=True)
        names = [*self._groups.names, None]  # the last for -1
        # Before number 0 comes -1, where a scan has no volume.
        return [names[group] for group in self._groups.numbers[highest[-len(self._volumes.names) :]]]

    def _pooled(self, by: "_Numbered") -> GroupScores | None:
        if not by.names:
            return None
        return group_scores(by.numbers, self._scores(0)[:2], self._labelled("normal"), self._labelled("anomaly"))

    def _scores(self, scorer: int) -> list[NDArray[np.float64]]:
        """The headline scores of a scorer, those in-sample, and those with only copies left out."""
        return [np.frombuffer(column, np.float64) for column in self._columns[scorer]]

    def _labelled(self, group: str) -> NDArray[np.bool_]:
        return np.asarray(np.frombuffer(self._labels, np.int8) == _CODES[GROUPS[group]])
