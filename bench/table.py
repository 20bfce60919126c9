"""Rows, each beside what it is measured against, as a table and as a file."""

import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from scanomaly.models.settings import usable_cores

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("scanomaly", "torch", "open_clip_torch", "numpy", "pillow", "celery", "sqlalchemy", "psycopg", "redis")
_HEADER = ("what", "measured", "against", "limit", "ratio", "goal")


@dataclass(frozen=True)
class Row:
    """Something measured, and what it was measured against in the same run."""

    what: str
    against: str
    unit: str
    measured: float
    limit: float
    goal: str = ""
    """What the ratio should be, such as `≥ 0.95`."""
    spread: tuple[float, float] | None = None
    """The smallest and the largest ratio of the rounds."""

    @property
    def ratio(self) -> float:
        return self.measured / self.limit


def row_of_rounds(
    what: str, against: str, unit: str, measured: Sequence[float], limit: Sequence[float], goal: str = ""
) -> Row:
    """The medians of rounds that were measured in turn."""
    ratios = [ours / theirs for ours, theirs in zip(measured, limit, strict=True)]
    return Row(what, against, unit, median(measured), median(limit), goal, (min(ratios), max(ratios)))


def table(rows: Iterable[Row]) -> str:
    """A Markdown table, its columns aligned."""
    cells = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def save(path: Path, rows: Sequence[Row], sizes: dict[str, object]) -> Path:
    """Write rows with the machine, the versions, the sizes and the date that they belong to."""
    path.parent.mkdir(exist_ok=True)
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES},
        "sizes": sizes,
        "rows": [asdict(row) | {"ratio": row.ratio} for row in rows],
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def machine() -> dict[str, object]:
    """The processor, its cores that this process may use, and the memory in GiB."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": usable_cores(),
        "memory_gib": round(memory, 1),
        "system": platform.system(),
    }


def _cells(row: Row) -> tuple[str, ...]:
    ratio = f"{row.ratio:.3g}"
    if row.spread:
        ratio += f" ({row.spread[0]:.3g} to {row.spread[1]:.3g})"
    return (
        row.what,
        f"{row.measured:.3g} {row.unit}",
        row.against,
        f"{row.limit:.3g} {row.unit}",
        ratio,
        row.goal,
    )
