"""Takes paths, and what may be a part of one, out of what a report says: ids stand for them.

Looks still need the paths of the scans that are shown, so these are kept until the looks were taken.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ...models.hiding import Hiding
from ...models.records import NamedScan, RankedScan

if TYPE_CHECKING:  # for its type only: report.py is the one that calls this module
    from .report import ReportData

_RULE = "by a rule that is hidden with the paths"


def concealed(data: "ReportData") -> "ReportData":
    """The data as a report may have them: all but `scans` and `slices`, whose paths are needed for the looks."""
    hiding = data.hiding
    if not hiding:
        return data
    points = [point._replace(scan=_named(point.scan, hiding)) for point in data.embedding_map.points]
    return replace(
        data,
        source=hiding.place(data.source),
        root=hiding.place(data.root),
        source_note=data.source_note and "why this one was taken is hidden with the paths",
        labels_note="labels " + _RULE,
        groups_note=data.groups_note and "groups " + _RULE,
        named=lambda ids: [_named(scan, hiding) for scan in data.named(ids)],
        failures=(replace(failure, path=hiding.path(failure.path)) for failure in data.failures),
        ignored=(replace(file, path=hiding.path(file.path)) for file in data.ignored),
        embedding_map=replace(data.embedding_map, points=points),
    )


def concealed_scans(scans: Iterable[RankedScan], hiding: Hiding) -> Iterable[RankedScan]:
    """The scans as a report may have them, in their order."""
    if not hiding:
        return scans
    return (
        scan._replace(
            path=hiding.path(scan.path),
            group=scan.group and hiding.name(scan.group, "group"),
            volume=scan.volume and hiding.name(scan.volume, "volume"),
        )
        for scan in scans
    )


def _named(scan: NamedScan, hiding: Hiding) -> NamedScan:
    return scan._replace(path=hiding.path(scan.path))
