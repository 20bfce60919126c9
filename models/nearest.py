"""What somebody may have meant by a name that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where no known name is like it."""
    names = {candidate.lower(): candidate for candidate in known}
    found = get_close_matches(name.lower(), names, n=1)
    return f" (did you mean {names[found[0]]!r}?)" if found else ""
