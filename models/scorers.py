"""The names of the scorers. What they compute is in `worker/scoring/`, which needs NumPy."""

from .errors import UsageError

DEFAULT_SCORERS = ("centroid",)
SCORERS = ("centroid", "knn", "mahalanobis")


def parse_scorers(text: str) -> tuple[str, ...]:
    """Read names of scorers with commas between them; one that comes twice counts once.

    Raises:
        UsageError: there is none, or one is unknown.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in SCORERS:
            raise UsageError(f"unknown scorer {name!r}: choose from {', '.join(SCORERS)}")
    if not names:
        raise UsageError(f"no scorer is named: choose from {', '.join(SCORERS)}")
    return names
