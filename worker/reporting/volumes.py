"""The volumes that the page shows: the ranking of the first, and their slices side by side."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...models.hiding import Hiding
from ...models.records import Slice
from ...models.states import Label
from .gallery import images
from .groups import PooledRow

VOLUMES_LISTED = 20
STRIPS = 12
"""How many of the volumes are shown with their slices."""
_MOST_SLICES = 24

Slices = Callable[[Sequence[str]], Mapping[str, Sequence[Slice]]]
"""The names of volumes → the scored slices of each, in any order."""


class VolumeRow(NamedTuple):
    """A volume as volumes.csv and the page list it."""

    name: str
    group: str | None
    pooled: PooledRow


@dataclass(frozen=True)
class StripSlice:
    """A slice as the page shows it."""

    number: int
    """Its place among the scored slices of the volume, from 1."""
    path: str
    label: Label | None
    score: float
    share: float
    """Where the score lies between the lowest and the highest of all strips, in [0, 1]."""
    highest: bool
    image: str | None
    """A data URI, or None when the file cannot be read any more."""


@dataclass(frozen=True)
class Strip:
    """A volume's slices, or some of them."""

    rank: int
    volume: VolumeRow
    slices: Sequence[StripSlice]
    total: int
    """How many scored slices the volume has."""

    @property
    def highest(self) -> StripSlice:
        return next(one for one in self.slices if one.highest)

    @property
    def mixed(self) -> bool:
        """Whether the labels of its slices tell them apart."""
        return len({one.label for one in self.slices}) > 1


def make_strips(
    names: Sequence[str],
    rows: Sequence[VolumeRow],
    slices: Slices,
    thumbnail: Callable[[str], bytes | None],
    hiding: Hiding,
) -> list[Strip]:
    """The strips of some volumes.

    Args:
        names: of the first volumes of the ranking, as `slices` knows them.
        rows: what the page says of each.
        slices: finds the slices of volumes.
        thumbnail: a path → JPEG bytes, or None.
        hiding: how paths are hidden.
    """
    found = {name: sorted(members, key=_natural) for name, members in slices(names).items()}
    picked = [[(number, found[name][number]) for number in _spread(found[name])] for name in names]
    scores = [one.score for chosen in picked for _, one in chosen]
    low, span = min(scores, default=0.0), max(scores, default=0.0) - min(scores, default=0.0)
    pictures = images(thumbnail, [one.path for chosen in picked for _, one in chosen])
    strips = []
    for rank, (name, row, chosen) in enumerate(zip(names, rows, picked, strict=True), 1):
        highest = _highest(found[name])
        shown = [
            StripSlice(
                number=number + 1,
                path=hiding.path(one.path),
                label=one.label,
                score=one.score,
                share=(one.score - low) / span if span else 1.0,
                highest=number == highest,
                image=pictures[one.path],
            )
            for number, one in chosen
        ]
        strips.append(Strip(rank, row, shown, len(found[name])))
    return strips


def _natural(one: Slice) -> list[tuple[int, str]]:
    """A key that has IM2 before IM10: many series are numbered so."""
    parts = re.split(r"([0-9]+)", one.path)
    return [(int(part) if at % 2 else 0, part) for at, part in enumerate(parts)]


def _spread(slices: Sequence[Slice]) -> list[int]:
    """Which slices a strip has: all, or some that are spread evenly, and among them the highest-scored one."""
    count = len(slices)
    if count <= _MOST_SLICES:
        return list(range(count))
    chosen = np.linspace(0, count - 1, _MOST_SLICES).round().astype(int)
    highest = _highest(slices)
    chosen[np.argmin(np.abs(chosen - highest))] = highest
    return [int(number) for number in chosen]


def _highest(slices: Sequence[Slice]) -> int:
    """The place of the slice with the highest score; of equal ones the first."""
    return max(range(len(slices)), key=lambda number: slices[number].score)
