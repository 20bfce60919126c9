"""Reads the beginning of a file, wherever the file is, and as little of it as it can."""

import errno
import os
import zlib
from typing import Protocol

_FIRST_BYTES = 4096
_MOST_BYTES = 1 << 16
_FAR = 1 << 16
_MOST_AT_ONCE = 1 << 20
_MOST_INFLATED = 1 << 26
_GZIP = 31


class Stream(Protocol):
    """What a reader takes."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = ..., /) -> int: ...

    def seekable(self) -> bool: ...


class CutError(Exception):
    """The content ends too early, or cannot be read. It says nothing about what it holds."""


class Reader:
    """A stream, read from its present position, which counts as 0.

    A step forward passes over what is small by reading it: that is one request to an object store, and no unpacking
    from the beginning in an archive. Every method raises CutError, and OSError where the stream does.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = b""
        self._buffer_start = 0
        self._next_bytes = _FIRST_BYTES
        self.position = 0

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer only where the content ends; they stay the next."""
        if size > _MOST_AT_ONCE:
            raise CutError
        start = self.position - self._buffer_start
        if len(self._buffer) - start < size:
            self._buffer, self._buffer_start, start = self._buffer[start:], self.position, 0
            while (missing := size - len(self._buffer)) > 0:
                part = self._read_stream(max(missing, self._next_bytes))
                if not part:
                    break
                self._buffer += part
                self._next_bytes = min(_MOST_BYTES, 4 * self._next_bytes)
        return self._buffer[start : start + size]

    def read(self, size: int) -> bytes:
        """The next bytes, just so many."""
        part = self.peek(size)
        if len(part) < size:
            raise CutError
        self.position += size
        return part

    def read_some(self) -> bytes:
        """Some next bytes; none where the content ends."""
        self.peek(1)
        part = self._buffer[self.position - self._buffer_start :]
        self.position += len(part)
        return part

    def skip(self, size: int) -> None:
        """Pass over bytes, which must be there."""
        left = self.position + size - (self._buffer_start + len(self._buffer))
        self.position += size
        if left <= 0:
            return
        self._buffer, self._buffer_start = b"", self.position
        if left > _FAR and self._stream.seekable():
            self._seek_stream(left - 1, os.SEEK_CUR)
            left = 1  # a stream can be far behind its end: only a byte tells that it is not
        while left > 0:
            part = self._read_stream(min(left, _MOST_BYTES))
            if not part:
                raise CutError
            left -= len(part)

    def seek(self, position: int) -> None:
        """Go somewhere else. Backwards is dear in an archive: the caller bounds how often."""
        if position >= self._buffer_start:
            if position > self.position:
                self.skip(position - self.position)
            self.position = position
            return
        if not self._stream.seekable():
            raise CutError
        self._seek_stream(position, os.SEEK_SET)
        self._buffer, self._buffer_start, self.position = b"", position, position

    def _read_stream(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (OSError, CutError):
            raise
        except Exception:  # a damaged member of an archive: zipfile, tarfile and zlib have their own errors
            raise CutError from None

    def _seek_stream(self, offset: int, whence: int) -> None:
        try:
            self._stream.seek(offset, whence)
        except OSError as error:
            if error.errno == errno.EINVAL:  # further than a file can reach
                raise CutError from None
            raise
        except Exception:  # as above, or further than a number can reach
            raise CutError from None


class Inflating:
    """The stream that a reader's deflated rest stands for: for gzip, all members that follow one another.

    A small file may stand for a huge one, so it ends with a CutError after `_MOST_INFLATED` bytes.
    """

    def __init__(self, reader: Reader, window_bits: int) -> None:
        """Take a reader, and zlib's `wbits`: −15 for a bare stream, 31 for gzip."""
        self._reader = reader
        self._window_bits = window_bits
        self._inflate: zlib._Decompress | None = zlib.decompressobj(window_bits)
        self._packed = b""
        self._left = _MOST_INFLATED

    def read(self, size: int, /) -> bytes:
        part = b""
        while not part and self._inflate is not None:
            content = self._packed or self._reader.read_some()
            if not content:
                raise CutError
            try:
                part = self._inflate.decompress(content, size)
            except zlib.error:
                raise CutError from None
            self._packed = self._inflate.unconsumed_tail
            if self._inflate.eof:
                self._inflate = self._next_member(self._inflate.unused_data)
        self._left -= len(part)
        if self._left < 0:
            raise CutError
        return part

    def _next_member(self, rest: bytes) -> "zlib._Decompress | None":
        """What inflates that which follows: behind gzip's last member there may be anything."""
        if self._window_bits != _GZIP:
            return None
        self._packed = rest or self._reader.read_some()
        return zlib.decompressobj(_GZIP) if self._packed.startswith(b"\x1f") else None

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        raise CutError

    def seekable(self) -> bool:
        return False
