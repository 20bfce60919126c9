"""Where scans lie beside one another: a picture of their embeddings in two dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...models.records import NamedScan

WIDTH, HEIGHT = 1000, 600
_MARGIN = 20


class MapPoint(NamedTuple):
    scan: NamedScan
    x: float
    y: float


@dataclass(frozen=True)
class EmbeddingMap:
    """Some or all of `total` scans, and the share of the embeddings' variance that the two dimensions show."""

    points: Sequence[MapPoint]
    variance: float
    total: int

    def placed(self) -> list[MapPoint]:
        """The points in a picture of WIDTH × HEIGHT, with one scale for both directions; the anomalies are last."""
        if not self.points:
            return []
        places = np.array([point[1:] for point in self.points])
        low, high = places.min(axis=0), places.max(axis=0)
        room = np.array([WIDTH, HEIGHT]) - 2 * _MARGIN
        scale = (room / np.where(high > low, high - low, 1)).min()
        centred = (places - (low + high) / 2) * scale + np.array([WIDTH, HEIGHT]) / 2
        moved = [
            MapPoint(point.scan, *place)
            for point, place in zip(self.points, centred.round(1).tolist(), strict=True)
        ]
        return sorted(moved, key=lambda point: str(point.scan.label) == "anomaly")
