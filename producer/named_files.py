"""The files and folders that a request names, and what is opened by these names."""

import os
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

from ..models.sources.beneath import open_regular, open_resolved


class NamedFiles:
    """Opens what a request names.

    What a person names at their own machine is what the system finds by the name. What a service's client names was
    resolved once, to see whether the client may have it: that is opened, or nothing.
    """

    def __init__(self, resolved: Mapping[str, str] | None = None) -> None:
        """Args:
        resolved: all that the request names, and where `os.path.realpath` found it; None where nobody looked.
        """
        self._resolved = None if resolved is None else {_key(name): Path(real) for name, real in resolved.items()}

    def real(self, name: Path) -> Path | None:
        """What a name was resolved to; None where nobody looked."""
        return None if self._resolved is None else self._resolved[_key(name)]

    def open(self, name: Path) -> BufferedReader:
        """A regular file. Raises OSError."""
        real = self.real(name)
        return open_regular(name) if real is None else open_resolved(real)


def _key(name: str | Path) -> str:
    return os.path.abspath(name)
