"""How an object is read: what is reserved for its bytes, and a file that asks for the ranges that are wanted."""

import errno
import io
import os
from collections.abc import Callable
from typing import Any, cast

from .answers import Found
from .connection import Connection
from .failures import ObjectTooLargeError, TryError


class RangeFile(io.RawIOBase):
    """An object of which each read asks for as many bytes as are wanted. A buffer lies before it."""

    def __init__(self, connection: Connection, path: str, found: Found, first: bytes) -> None:
        self._connection = connection
        self._path = path
        self._found = found
        self._size = cast(int, found.size)
        self._first = first
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise OSError(errno.EINVAL, "a place before the beginning")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        data = self._first[self._at : end] if self._at < len(self._first) else self._range(self._at, end)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _range(self, begin: int, end: int) -> bytes:
        """Some bytes of the version that was found."""

        def attempt() -> bytes:
            answer = self._connection.run(self._connection.driver.get(self._path, (begin, end), self._found))
            try:
                if answer.found.differs(self._found) or not answer.ranged:
                    raise TryError(errno.ESTALE, "the object changed while it was read")
                return self._connection.run(answer.whole())
            finally:
                self._connection.run(answer.close())

        return self._connection.retry(attempt)


class Claim:
    """What was reserved for an object: more when more is needed, never twice for a second try."""

    def __init__(self, reserve: Callable[[int], None], max_bytes: int | None) -> None:
        self._reserve = reserve
        self._max_bytes = max_bytes
        self._had: int | None = None

    def up_to(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise ObjectTooLargeError(size)
        if self._had is None or size > self._had:
            self._reserve(size - (self._had or 0))
            self._had = size
