"""What a process of a worker writes: passed on as it comes, and its last line kept."""

import os
import threading
from contextlib import suppress
from typing import IO

from ..models.processes import message_of

_LONGEST_LINE = 65536
_JOIN_SECONDS = 1.0


class Tail:
    """Copies a process's standard error to this one's, in a thread."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._line = b""
        self._thread = threading.Thread(target=self._copy, daemon=True, name="tail")
        self._thread.start()

    def _copy(self) -> None:
        while line := self._stream.readline(_LONGEST_LINE):
            self._line = line if line.strip() else self._line
            with suppress(OSError):  # a terminal that is gone: the process must not wait for it
                os.write(2, line)

    def last_message(self) -> str:
        """Its last line when it has ended, without the time and the level that a log puts before."""
        self._thread.join(_JOIN_SECONDS)  # no longer: what it started may hold the other end
        return message_of(self._line.decode(errors="replace"))
