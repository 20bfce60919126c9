"""Renders report.html: one file without scripts or links to anything outside it."""

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...models.records import RankedScan
from .decisions import Decisions, decided
from .intervals import Interval
from .ranking import GROUPS
from .wording import MEANINGS

if TYPE_CHECKING:  # for its type only: report.py is the one that calls this module
    from .report import Findings, ReportData

#: Failures, and ignored files, that the page lists; the CSV files have all of them.
LISTED = 200
_THUMBNAIL_THREADS = 4

# Control characters, bidirectional overrides, invisible characters and lone surrogates: in a file name they could
# hide or reorder what a person reads. The joiners U+200C and U+200D stay, which Persian and emoji need.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff]"
)


@dataclass(frozen=True)
class _Card:
    """One scan of the gallery. `image` is a data URI, or None when the file cannot be read any more."""

    rank: int
    score: float
    p_value: float | None
    label: str | None
    path: str
    image: str | None


def render_page(data: "ReportData", findings: "Findings", charts: Mapping[str, bytes]) -> str:
    """The page as UTF-8-encodable text. `charts` are PNGs by name."""
    ranking, threshold = findings.ranking, findings.decisions.threshold
    return (
        _environment()
        .get_template("report.html")
        .render(
            data=data,
            evaluation=findings.evaluation,
            comparison=findings.comparison,
            meanings=MEANINGS,
            warnings=findings.warnings,
            shortcuts=findings.shortcuts,
            overlap=findings.overlap,
            measured=int(data.outline.are_measured.sum()),
            duplicates=findings.duplicates,
            duplicates_shown=findings.duplicates_shown,
            groups=findings.groups,
            failure_kinds=findings.failure_kinds,
            failures=findings.failures,
            ignored=findings.ignored,
            ranked=ranking.total,
            anomalies=ranking.count("anomaly"),
            normals=ranking.count("normal"),
            unlabelled=ranking.count("unlabelled"),
            decisions=findings.decisions,
            called={} if threshold is None else {group: ranking.count_above(group, threshold) for group in GROUPS},
            cards=list(_cards(ranking.first[: data.gallery_scans], findings.decisions, data.thumbnail)),
            charts={name: _data_uri("image/png", chart) for name, chart in charts.items()},
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_show_invisible,  # on every value the template prints, so that none can be forgotten
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "plural": _plural, "duration": _duration, "utc": _utc}
    environment.filters |= {"p_value": _p_value, "range": _range, "ends": _ends, "signed": _signed}
    return environment


def _cards(
    shown: Sequence[RankedScan], decisions: Decisions, thumbnail: Callable[[str], bytes | None]
) -> Iterator[_Card]:
    p_values, _ = decided(shown, decisions)
    with ThreadPoolExecutor(_THUMBNAIL_THREADS) as threads:
        images = threads.map(partial(_image, thumbnail), [scan.path for scan in shown])
        for rank, (scan, p_value, image) in enumerate(zip(shown, p_values, images, strict=True), start=1):
            yield _Card(rank, scan.score, p_value, scan.label, scan.path, image)


def _image(thumbnail: Callable[[str], bytes | None], path: str) -> str | None:
    try:
        jpeg = thumbnail(path)
    except OSError:  # the page says so on the scan's card; one file must not cost the report
        return None
    return None if jpeg is None else _data_uri("image/jpeg", jpeg)


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _show_invisible(value: object) -> object:
    """Replace what cannot be seen by its escape, such as `\\u202e`. Markup was built from finalized values."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode("ascii"), value)


def _number(value: int) -> str:
    return f"{value:,}"


def _p_value(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else f"p = {value:.1g}"


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _ends(interval: tuple[float | None, float | None]) -> str:
    """A sentence about the interval of the threshold."""
    low, high = interval
    if low is None or high is None:
        return "With so few normals, their true quantile may lie beyond all of them."
    return f"Its 95% interval is {low:.4f} to {high:.4f}."


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
