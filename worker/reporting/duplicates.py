"""Which scans show the same picture."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..scoring.outline import Outline
from ..scoring.units import units

KINDS = ("identical", "near_identical")


@dataclass(frozen=True, eq=False)
class DuplicateGroup:
    """Scans whose files are identical, or whose pictures look nearly so, in order of submission."""

    scan_ids: NDArray[np.int64]
    contents: int
    """How many different files they are."""
    across: bool
    """Whether a normal and an anomaly are among them."""

    @property
    def kind(self) -> str:
        return KINDS[self.contents > 1]


@dataclass(frozen=True, eq=False)
class Duplicates:
    """All groups of at least two scans: first those with both labels, then the largest."""

    groups: list[DuplicateGroup]

    @cached_property
    def across(self) -> list[DuplicateGroup]:
        return [group for group in self.groups if group.across]

    def counts(self) -> dict[str, dict[str, int]]:
        """By kind: groups, the scans in them, and the groups with both labels."""
        of_kind = {kind: [group for group in self.groups if group.kind == kind] for kind in KINDS}
        return {
            kind: {
                "groups": len(groups),
                "scans": sum(len(group.scan_ids) for group in groups),
                "groups_with_both_labels": sum(group.across for group in groups),
            }
            for kind, groups in of_kind.items()
        }


def find_duplicates(outline: Outline) -> Duplicates:
    """Find the scans that share a content, or whose perceptual hashes are near (see `scoring/units.py`)."""
    alone = np.full(len(outline.scan_ids), -1)
    numbers = units(outline.contents, outline.hashes, alone, outline.are_measured)
    sizes = np.bincount(numbers)
    several = np.flatnonzero(sizes[numbers] > 1)  # the other scans, nearly all, are not sorted
    order = several[np.argsort(numbers[several], kind="stable")]
    ends = np.flatnonzero(np.diff(numbers[order])) + 1
    groups = [_group(outline, rows) for rows in np.split(order, ends) if len(rows)]
    groups.sort(key=lambda group: (not group.across, -len(group.scan_ids), group.scan_ids[0]))
    return Duplicates(groups)


def _group(outline: Outline, rows: NDArray[np.int64]) -> DuplicateGroup:
    across = outline.are_normal[rows].any() and outline.are_anomalies[rows].any()
    return DuplicateGroup(outline.scan_ids[rows], len(np.unique(outline.contents[rows])), bool(across))
