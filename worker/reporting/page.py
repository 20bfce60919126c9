"""Renders report.html: one file that loads nothing from outside it."""

import base64
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .embedding_map import HEIGHT, WIDTH
from .gallery import make_cards
from .intervals import Interval
from .ranking import GROUPS
from .volumes import STRIPS, Strip, make_strips
from .wording import MEANINGS

if TYPE_CHECKING:  # for its type only: report.py is the one that calls this module
    from .plots import Chart
    from .report import Findings, ReportData

#: Failures, and ignored files, that the page lists; the CSV files have all of them.
LISTED = 200
_TEMPLATES = Path(__file__).parent / "templates"

# Control characters, bidirectional overrides, invisible characters and lone surrogates: in a file name they could
# hide or reorder what a person reads. The joiners U+200C and U+200D stay, which Persian and emoji need.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff]"
)


def render_page(data: "ReportData", findings: "Findings", charts: Mapping[str, "Chart"]) -> str:
    """The page as UTF-8-encodable text. `charts` are by name."""
    ranking, decisions = findings.ranking, findings.decisions
    threshold = decisions.threshold
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    cards = make_cards(ranking.shown(), decisions, data.outline, data.looks, data.hiding)
    return (
        _environment()
        .get_template("report.html")
        .render(
            data=data,
            findings=findings,
            evaluation=findings.evaluation,
            meanings=MEANINGS,
            ranked=ranking.total,
            anomalies=ranking.count("anomaly"),
            normals=ranking.count("normal"),
            unlabelled=ranking.count("unlabelled"),
            measured=int(data.outline.are_measured.sum()),
            called={} if threshold is None else {group: ranking.count_above(group, threshold) for group in GROUPS},
            cards=cards,
            strips=_strips(data, findings),
            has_groups=findings.groups is not None and not ranking.groups_are_volumes,
            groups_are_volumes=ranking.groups_are_volumes,
            first=min(data.gallery_scans, ranking.total),
            has_errors=any(card.error for card in cards),
            has_heat=any(card.heat for card in cards),
            map=data.embedding_map,
            map_size=(WIDTH, HEIGHT),
            charts={name: Markup(chart.svg) for name, chart in charts.items()},  # drawn from numbers alone
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        )
    )


def _strips(data: "ReportData", findings: "Findings") -> list[Strip]:
    if findings.volumes is None:
        return []
    all_names, numbers = findings.ranking.volume_names, findings.volumes.numbers[:STRIPS]
    names = [all_names[number] for number in numbers]
    return make_strips(names, findings.volumes_listed[:STRIPS], data.slices, data.looks.small, data.hiding)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_show_invisible,  # on every value the template prints, so that none can be forgotten
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "plural": _plural, "duration": _duration, "utc": _utc}
    environment.filters |= {"p_value": _p_value, "range": _range, "ends": _ends, "signed": _signed}
    return environment


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
