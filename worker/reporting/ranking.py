"""What a report keeps of the rows that pass by on their way into its CSV files; there may be millions."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...models.records import RankedScan
from ...models.states import Label
from .evaluation import ScorerResult, difference, evaluate

_T = TypeVar("_T")

_PAGE = 2000
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


class Ranking:
    """The first scans of the ranking, and the scores and label of every one: 1 byte a scan, and 16 a scorer."""

    def __init__(self, shown: int, scorers: Sequence[str]) -> None:
        """Keep the first `shown` scans of a ranking by the first of `scorers`."""
        self._shown = shown
        self._names = scorers
        self.first: list[RankedScan] = []
        self._columns = [(array("d"), array("d")) for _ in scorers]
        self._labels = array("b")

    def passing(self, scans: Iterable[RankedScan]) -> Iterator[RankedScan]:
        """The same scans, in their order: highest score first."""
        iterator = iter(scans)
        while page := list(islice(iterator, _PAGE)):
            self._take(page)
            yield from page

    def _take(self, page: list[RankedScan]) -> None:
        self.first += page[: self._shown - len(self.first)]
        _, labels, scores, in_sample, _, others = zip(*page, strict=True)
        pairs = [(scores, in_sample), *(zip(*column, strict=True) for column in zip(*others, strict=True))]
        for column, pair in zip(self._columns, pairs, strict=True):
            for kept, new in zip(column, pair, strict=True):
                kept.extend(new)
        self._labels.extend([_CODES[label] for label in labels])

    @property
    def total(self) -> int:
        return len(self._labels)

    def scores_of(self, group: str) -> NDArray[np.float64]:
        """The scores of a group of `GROUPS`, highest first: (n,)."""
        return self._scores(0)[self._labelled(group)]

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
            scores = self._scores(number)[labelled]
            found = evaluate(scores, self._scores(number, in_sample=True)[labelled], truth)
            first = self._scores(0)[labelled]
            results.append(ScorerResult(name, found, difference(scores, first, truth) if number else None))
        return results

    def _scores(self, scorer: int, in_sample: bool = False) -> NDArray[np.float64]:
        return np.frombuffer(self._columns[scorer][in_sample], np.float64)

    def _labelled(self, group: str) -> NDArray[np.bool_]:
        return np.asarray(np.frombuffer(self._labels, np.int8) == _CODES[GROUPS[group]])
