"""What standard output and standard error are."""

import os
from typing import IO


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether a stream is a terminal that understands more than lines."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown")
