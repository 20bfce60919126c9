"""What a report keeps of the rows that pass by on their way into its CSV files; there may be millions."""

from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...models.records import RankedScan
from ...models.states import Label
from .evaluation import Evaluation, evaluate

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
    """The first scans of the ranking, and the score and label of every one: 17 bytes a scan."""

    def __init__(self, shown: int) -> None:
        """Keep the first `shown` scans."""
        self._shown = shown
        self.first: list[RankedScan] = []
        self._scores = array("d")
        self._in_sample = array("d")
        self._labels = array("b")

    def passing(self, scans: Iterable[RankedScan]) -> Iterator[RankedScan]:
        """The same scans, in their order: highest score first."""
        iterator = iter(scans)
        while page := list(islice(iterator, _PAGE)):
            self._take(page)
            yield from page

    def _take(self, page: list[RankedScan]) -> None:
        self.first += page[: self._shown - len(self.first)]
        _, labels, scores, in_sample, *_ = zip(*page, strict=True)
        self._scores.extend(scores)
        self._in_sample.extend(in_sample)
        self._labels.extend([_CODES[label] for label in labels])

    @property
    def total(self) -> int:
        return len(self._scores)

    def scores_of(self, group: str) -> NDArray[np.float64]:
        """The scores of a group of `GROUPS`, highest first: (n,)."""
        return np.frombuffer(self._scores, np.float64)[self._labelled(group)]

    def count(self, group: str) -> int:
        return int(np.count_nonzero(self._labelled(group)))

    def count_above(self, group: str, threshold: float) -> int:
        return int(np.count_nonzero(self.scores_of(group) > threshold))

    def evaluation(self) -> Evaluation:
        """How well the scores tell anomalies from normals."""
        labelled = ~self._labelled("unlabelled")
        return evaluate(
            np.frombuffer(self._scores, np.float64)[labelled],
            np.frombuffer(self._in_sample, np.float64)[labelled],
            self._labelled("anomaly")[labelled],
        )

    def _labelled(self, group: str) -> NDArray[np.bool_]:
        return np.asarray(np.frombuffer(self._labels, np.int8) == _CODES[GROUPS[group]])
