"""What could tell the anomalies from the normals without looking at what the scans show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..scoring.outline import Outline
from . import intervals
from .evaluation import Estimate
from .intervals import Interval

_NAMES = {
    "file_bytes": "file size",
    "width": "image width",
    "height": "image height",
    "aspect": "aspect ratio",
    "grey_mean": "image brightness",
    "grey_spread": "image contrast",
    "border_share": "black border",
}


@dataclass(frozen=True)
class Shortcut:
    """How well one trait alone tells the anomalies from the normals."""

    trait: str
    auroc: Estimate
    """At least 0.5: in whichever direction the trait tells more. Its interval is DeLong's."""
    higher: bool
    """Whether the anomalies have the higher values."""

    @property
    def name(self) -> str:
        kind, _, value = self.trait.partition(":")
        return f"file format ({value} or not)" if kind == "format" else _NAMES[kind]


def shortcuts(outline: Outline) -> list[Shortcut]:
    """The AUROC of each trait over the labelled scans, the highest first; none where a class has no scan.

    Of the file formats each is a trait, which a scan has or has not, and the best of them is told.
    """
    wanted = (outline.are_normal | outline.are_anomalies) & outline.are_measured
    truth = outline.are_anomalies[wanted]
    if truth.all() or not truth.any():
        return []
    found = [_shortcut(trait, values[wanted], truth) for trait, values in _traits(outline)]
    found.sort(key=lambda shortcut: -shortcut.auroc.value)
    formats = [shortcut for shortcut in found if shortcut.trait.startswith("format:")]
    return [shortcut for shortcut in found if shortcut not in formats[1:]]


def overlapping(found: Sequence[Shortcut], scorer: Estimate) -> Shortcut | None:
    """The best shortcut, where the scorer is not clearly better: their 95 % intervals overlap, or it is worse.

    None where no trait tells anything.
    """
    if not found or found[0].auroc.value == 0.5:
        return None
    best = found[0].auroc
    high = best.value if best.interval is None else best.interval.high
    low = scorer.value if scorer.interval is None else scorer.interval.low
    return found[0] if low <= high else None


def _traits(outline: Outline) -> Iterator[tuple[str, NDArray[np.float64]]]:
    for name, values in outline.measures.items():
        yield name, values.astype(np.float64)
    yield "aspect", outline.measures["width"] / outline.measures["height"].astype(np.float64)
    for number, name in enumerate(outline.format_names):
        yield f"format:{name}", (outline.formats == number).astype(np.float64)


def _shortcut(trait: str, values: NDArray[np.float64], truth: NDArray[np.bool_]) -> Shortcut:
    compared = intervals.delong(truth, values)
    auroc, interval = float(compared.aurocs[0]), compared.interval(0)
    if auroc >= 0.5:
        return Shortcut(trait, Estimate(auroc, interval), higher=True)
    turned = None if interval is None else Interval(1 - interval.high, 1 - interval.low)
    return Shortcut(trait, Estimate(1 - auroc, turned), higher=False)
