"""All that is known of a job's embedded scans but their vectors and scores, in arrays: a million scans fit."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...models.records import OutlinePage
from ...models.states import Label
from .scorer import Units
from .units import units

MEASURES = ("file_bytes", "width", "height", "grey_mean", "grey_spread", "border_share")
"""The traits that are numbers."""
_BITS = (1 << 64) - 1
_SEED = 0


@dataclass(frozen=True, eq=False)
class Outline:
    """The embedded scans of a job in order of submission: n of them.

    Attributes:
        scan_ids: (n,) int64, ascending.
        are_normal: (n,) bool; `are_anomalies` likewise. A scan without a label is neither.
        contents: (n,) uint64, equal for equal contents.
        hashes: (n,) uint64, perceptual hashes; 0 where `are_measured` is False.
        are_measured: (n,) bool, whether the traits are known.
        groups: (n,) int64, the number of its group, and -1 for a scan of none.
        group_names: by number.
        formats: (n,) int64, the number of the file's format, and -1 where it is unknown.
        format_names: by number.
        measures: by the names of `MEASURES`, (n,) float32; NaN where it is unknown.
    """

    scan_ids: NDArray[np.int64]
    are_normal: NDArray[np.bool_]
    are_anomalies: NDArray[np.bool_]
    contents: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    are_measured: NDArray[np.bool_]
    groups: NDArray[np.int64]
    group_names: list[str]
    formats: NDArray[np.int64]
    format_names: list[str]
    measures: dict[str, NDArray[np.float32]]

    @classmethod
    def read(cls, pages: Iterable[OutlinePage]) -> Self:
        """Gather the pages of `Scores.outline`."""
        groups, formats = _Numbers(), _Numbers()
        columns: dict[str, list[NDArray[Any]]] = {}

        def add(name: str, values: Iterable[Any], dtype: type) -> None:
            columns.setdefault(name, []).append(np.array(list(values), dtype=dtype))

        empty = OutlinePage((), (), (), (), dict.fromkeys((*MEASURES, "format", "perceptual_hash"), ()))
        for page in (empty, *pages):
            hashes = page.traits["perceptual_hash"]
            add("scan_ids", page.scan_ids, np.int64)
            add("are_normal", (label is Label.NORMAL for label in page.labels), np.bool_)
            add("are_anomalies", (label is Label.ANOMALY for label in page.labels), np.bool_)
            add("contents", page.contents, np.uint64)
            add("hashes", ((value or 0) & _BITS for value in hashes), np.uint64)
            add("are_measured", (value is not None for value in hashes), np.bool_)
            add("groups", map(groups.of, page.groups), np.int64)
            add("formats", map(formats.of, page.traits["format"]), np.int64)
            for name in MEASURES:
                add(name, page.traits[name], np.float32)  # None becomes NaN
        whole = {name: np.concatenate(parts) for name, parts in columns.items()}
        measures = {name: whole.pop(name) for name in MEASURES}
        return cls(**whole, group_names=groups.names, format_names=formats.names, measures=measures)

    @cached_property
    def units(self) -> Units:
        """(n,) the unit of each scan (see `units.py`); those with the most normals have the lowest numbers."""
        return self._by_normals(units(self.contents, self.hashes, self.groups, self.are_measured))

    @cached_property
    def copies(self) -> Units:
        """(n,) the same, where only scans of one content belong together."""
        return self._by_normals(np.unique(self.contents, return_inverse=True)[1])

    @cached_property
    def wider(self) -> NDArray[np.bool_]:
        """(n,) whether the unit of a scan holds normals of several contents."""
        pairs = np.unique(np.stack([self.units, self.copies])[:, self.are_normal], axis=1)
        return np.asarray((np.bincount(pairs[0], minlength=self.units.max(initial=-1) + 1) > 1)[self.units])

    def shared(self, numbers: Units) -> int:
        """How many of `units` or `copies` have several normals: their numbers are the lowest."""
        return int(np.count_nonzero(np.bincount(numbers[self.are_normal]) > 1))

    def _by_normals(self, numbers: Units) -> Units:
        normals = np.bincount(numbers[self.are_normal], minlength=numbers.max(initial=-1) + 1)
        return np.asarray(np.argsort(np.argsort(-normals, kind="stable"))[numbers], dtype=np.int64)

    @property
    def can_leave_out(self) -> bool:
        """Whether any normal is left when one is left out with its unit. If not, their scores are in-sample."""
        normals = self.units[self.are_normal]
        return bool(len(normals) and (normals != normals[0]).any())

    def sampled_normals(self, limit: int) -> NDArray[np.int64]:
        """The positions of at most `limit` normals, ascending: of more, always the same random ones."""
        rows = np.flatnonzero(self.are_normal)
        return np.sort(np.random.default_rng(_SEED).permutation(rows)[:limit])

    def unit_of(self, sha256: str) -> int:
        """The unit of all scans of a content."""
        return int(self.units[self._row_of(sha256)])

    def size_of(self, sha256: str) -> tuple[float, float] | None:
        """The width and height of a content in pixels; None where they are unknown."""
        row = self._row_of(sha256)
        if not self.are_measured[row]:
            return None
        return float(self.measures["width"][row]), float(self.measures["height"][row])

    def _row_of(self, sha256: str) -> int:
        """A position of a content."""
        content = np.uint64(int(sha256[:16], 16))
        return int(self._by_content[np.searchsorted(self.contents, content, sorter=self._by_content)])

    @cached_property
    def _by_content(self) -> NDArray[np.int64]:
        return np.argsort(self.contents)

    def rows_of(self, scan_ids: Iterable[int]) -> NDArray[np.int64]:
        """The positions of some scans."""
        return np.searchsorted(self.scan_ids, np.array(list(scan_ids), dtype=np.int64))


class _Numbers:
    """Numbers names as they come, from 0; None is -1."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, name: str | None) -> int:
        return -1 if name is None else self._numbers.setdefault(name, len(self._numbers))

    @property
    def names(self) -> list[str]:
        return list(self._numbers)
