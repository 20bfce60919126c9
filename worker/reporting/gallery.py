"""The scans that the page shows: the top of the ranking, what the threshold gets wrong, and a sample of all."""

import base64
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.hiding import Hiding
from ...models.records import NamedScan
from ...models.states import Label
from ..scoring.outline import Outline
from .decisions import Decisions, decided
from .plots import heat_png
from .ranking import Place

_THREADS = 4
MISSED, FALSE_ALARM = "missed", "false-alarm"


@dataclass(frozen=True)
class Heat:
    """A heat map over the middle square of a picture: a PNG as data URI, and the square's side in percent of the
    picture's longer side."""

    image: str
    percent: float


@dataclass(frozen=True)
class Card:
    """One scan of the gallery. Images are data URIs, or None when the file cannot be read any more."""

    rank: int
    score: float
    p_value: float | None
    label: str | None
    error: str | None
    """`missed` for an anomaly that is not called one, `false-alarm` for a normal that is; None for any other."""
    path: str
    image: str | None
    heat: Heat | None
    nearest: str | None
    """The path of the nearest normal."""
    nearest_image: str | None


@dataclass(frozen=True)
class Looks:
    """How the gallery gets what it shows. Each may be slow, and is called for the scans that are shown alone.

    Attributes:
        thumbnail: a path → JPEG bytes, or None when the file cannot be read any more. From a few threads at once,
            in order of the paths, so that slices of one volume come one after the other.
        small: the same for a slice in a strip of many.
        nearest: digests → the nearest normal of each, or None.
        heat_maps: digests → for each (rows, columns) of how unusual each place is, or None.
    """

    thumbnail: Callable[[str], bytes | None]
    small: Callable[[str], bytes | None]
    nearest: Callable[[Sequence[str]], Sequence[NamedScan | None]]
    heat_maps: Callable[[Sequence[str]], Sequence[NDArray[np.float64] | None]]


def make_cards(
    places: Sequence[Place], decisions: Decisions, outline: Outline, looks: Looks, hiding: Hiding
) -> list[Card]:
    """The cards of some scans, in the order of their ranks. `places` and `looks` have the paths that are hidden."""
    scans = [place.scan for place in places]
    digests = [scan.sha256 for scan in scans]
    p_values, predicted = decided(scans, decisions)
    nearest, heat_maps = looks.nearest(digests), _heat(looks.heat_maps(digests), digests, outline)
    paths = [scan.path for scan in scans] + [other.path for other in nearest if other is not None]
    pictures = images(looks.thumbnail, paths)
    return [
        Card(
            rank=place.rank,
            score=place.scan.score,
            p_value=p_value,
            label=place.scan.label,
            error=_error(place.scan.label, called),
            path=hiding.path(place.scan.path),
            image=pictures[place.scan.path],
            heat=heat if pictures[place.scan.path] else None,
            nearest=None if other is None else hiding.path(other.path),
            nearest_image=None if other is None else pictures[other.path],
        )
        for place, p_value, called, other, heat in zip(places, p_values, predicted, nearest, heat_maps, strict=True)
    ]


def _error(label: Label | None, called: Label | None) -> str | None:
    if label is None or called is None or label == called:
        return None
    return MISSED if label is Label.ANOMALY else FALSE_ALARM


def _heat(
    maps: Sequence[NDArray[np.float64] | None], digests: Sequence[str], outline: Outline
) -> list[Heat | None]:
    """All in one scale, so that scans can be compared: from the middle of all places shown to the highest."""
    values = [found for found in maps if found is not None]
    if not values:
        return [None] * len(maps)
    low, high = float(np.median(values)), float(np.max(values))
    found: list[Heat | None] = []
    for heat, digest in zip(maps, digests, strict=True):
        size = outline.size_of(digest)
        if heat is None or size is None:
            found.append(None)
            continue
        # Encoders see the middle square of a picture; the page shows all of it in a square.
        percent = 100 * min(size) / max(size)
        found.append(Heat(_data_uri("image/png", heat_png(heat, low, high)), percent))
    return found


def images(thumbnail: Callable[[str], bytes | None], paths: Sequence[str]) -> dict[str, str | None]:
    """Thumbnails as data URIs, by the paths of the scans, of each of which one is made."""
    each = sorted(set(paths))  # what is of one archive or volume comes together, so that it may stay open
    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(each, threads.map(lambda path: _image(thumbnail, path), each), strict=True))


def _image(thumbnail: Callable[[str], bytes | None], path: str) -> str | None:
    try:
        jpeg = thumbnail(path)
    except OSError:  # the page says so on the scan's card; one file must not cost the report
        return None
    return None if jpeg is None else _data_uri("image/jpeg", jpeg)


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
