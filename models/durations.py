"""Times for a person."""

from datetime import UTC, datetime
from itertools import pairwise

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """Seconds in the largest unit that fits, and in the next one too while there are few: `1 h 20 min`."""
    if seconds < 0.95:
        return "less than 1 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for (unit, size), (smaller, small) in pairwise(_UNITS):
        if whole >= size:
            if whole >= 10 * size:
                return f"{round(whole / size)} {unit}"
            count, rest = divmod(round(whole / small) * small, size)
            return f"{count} {unit} {rest // small} {smaller}" if rest else f"{count} {unit}"
    return f"{whole} s"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago a moment was, in one unit."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{int(seconds / size)} {unit} ago"
    return "now"
