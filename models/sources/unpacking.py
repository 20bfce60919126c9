"""Streams of what is in an archive. None ever unpacks more than a block beyond what is read."""

import bz2
import io
import lzma
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from .members import RATIO_FREE_BYTES, ArchiveDamagedError

_PACKED_BYTES = 256 * 1024
_BLOCK = 128 * 1024
_MAGIC_BYTES = 6
_LZMA_HEADER = struct.Struct("<2xHBL")
_LEAST_DICTIONARY_BYTES = 4096
_MOST_XZ_BYTES = 128 * 1024**2  # `xz -9` wants 65 MiB

CUT_SHORT = "The archive is cut short."


class Source(Protocol):
    """A file or stream to read from: `BinaryIO`, or one of the streams here."""

    def read(self, size: int, /) -> bytes | None: ...

    def seek(self, offset: int, whence: int = ..., /) -> int: ...


class Decompressor(Protocol):
    """As bz2 and lzma have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


Make: TypeAlias = Callable[[], Decompressor]


def read_fully(source: Source, size: int) -> bytes:
    """So many bytes, fewer only where the source ends."""
    data = source.read(size) or b""
    while len(data) < size and (part := source.read(size - len(data))):
        data += part
    return data


class _Zlib:
    """zlib's decompressor as bz2 and lzma have theirs."""

    def __init__(self, window_bits: int) -> None:
        self._inflate = zlib.decompressobj(window_bits)
        self._is_full = False

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    @property
    def needs_input(self) -> bool:
        return not (self._is_full or self._inflate.unconsumed_tail)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        unpacked = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self._is_full = len(unpacked) == max_length  # zlib may hold back more
        return unpacked


def deflate() -> Decompressor:
    """A bare stream, as zips have it."""
    return _Zlib(-zlib.MAX_WBITS)


def gzip() -> Decompressor:
    return _Zlib(16 + zlib.MAX_WBITS)


def bzip2() -> Decompressor:
    return bz2.BZ2Decompressor()


def xz() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_XZ_BYTES)


class ZipLzma:
    """LZMA as zips have it: a version, the length of the properties (5), and they: APPNOTE 5.8.8."""

    def __init__(self, size: int) -> None:
        """Args:
        size: of what is unpacked, in bytes. A larger dictionary is of no use, whatever the header asks for.
        """
        self._most_bytes = max(_LEAST_DICTIONARY_BYTES, size)
        self._header = b""
        self._inner: lzma.LZMADecompressor | None = None

    @property
    def eof(self) -> bool:
        return self._inner is not None and self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return b""

    @property
    def needs_input(self) -> bool:
        return self._inner is None or self._inner.needs_input

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        if self._inner is None:
            self._header += data
            if len(self._header) < _LZMA_HEADER.size:
                return b""
            self._inner = self._begin()
            data, self._header = self._header[_LZMA_HEADER.size :], b""
        return self._inner.decompress(data, max_length)

    def _begin(self) -> lzma.LZMADecompressor:
        length, packed, dictionary_bytes = _LZMA_HEADER.unpack_from(self._header)
        if length != _LZMA_HEADER.size - 4:
            raise ValueError
        packed, literal_context = divmod(packed, 9)
        position, literal_position = divmod(packed, 5)
        properties = {
            "id": lzma.FILTER_LZMA1,
            "dict_size": max(_LEAST_DICTIONARY_BYTES, min(dictionary_bytes, self._most_bytes)),
            "lc": literal_context,
            "lp": literal_position,
            "pb": position,
        }
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[properties])


class _Stream(io.RawIOBase):
    """A stream with a position."""

    def __init__(self) -> None:
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def _end(self) -> int:
        raise io.UnsupportedOperation("its end is not known")

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += self._end()
        self._position = max(0, offset)
        return self._position


class Stretch(_Stream):
    """Some bytes of a file that others read too."""

    def __init__(self, source: Source, lock: AbstractContextManager[object], start: int, size: int) -> None:
        """Args:
        source: the file.
        lock: for its position.
        start: of the first byte.
        size: how many there are. If the file ends before, reading raises ArchiveDamagedError.
        """
        super().__init__()
        self._source = source
        self._lock = lock
        self._start = start
        self._size = size

    def _end(self) -> int:
        return self._size

    def readinto(self, buffer: "memoryview | bytearray", /) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size < 0 else min(size, left)
        if not wanted:
            return b""
        with self._lock:
            self._source.seek(self._start + self._position)
            data = self._source.read(wanted)
        if not data:
            raise ArchiveDamagedError(CUT_SHORT)
        self._position += len(data)
        return data


class Unpacked(_Stream):
    """The stream that a packed one stands for. Not safe to use from several threads.

    It unpacks block by block. To go back to a block that is not kept, it starts again from the beginning.
    """

    def __init__(
        self, packed: Source, make: Make, magic: bytes = b"", most_bytes: int | None = None, keep_bytes: int = 0
    ) -> None:
        """Args:
        packed: a stream whose position is nobody else's.
        make: makes a decompressor.
        magic: how a further packed stream begins, which may follow the first. What else follows is passed over.
        most_bytes: above which nothing honest would be unpacked; or None.
        keep_bytes: of the blocks that were unpacked last, and are kept.
        """
        super().__init__()
        self._packed = packed
        self._make = make
        self._magic = magic
        self._most_bytes = most_bytes
        self._keep = max(1, keep_bytes // _BLOCK)
        self._restart()

    def _restart(self) -> None:
        self._packed.seek(0)
        self._decompressor: Decompressor | None = None
        self._rest = b""
        self._blocks: deque[bytes] = deque()
        self._first = 0
        self._ended = False
        self._damage: str | None = None

    def readinto(self, buffer: "memoryview | bytearray", /) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        """Some of the next bytes."""
        number, start = divmod(self._position, _BLOCK)
        block = self._block(number)
        data = block[start:] if size < 0 else block[start : start + size]
        self._position += len(data)
        if not data and size and self._damage is not None:
            raise ArchiveDamagedError(self._damage)
        return data

    def _block(self, number: int) -> bytes:
        """A block of the unpacked stream: the last may be short, and those behind it are empty."""
        if number < self._first:
            self._restart()
        while number >= self._first + len(self._blocks):
            if self._ended:
                return b""
            self._append()
        return self._blocks[number - self._first]

    def _append(self) -> None:
        """Unpack a block; a short one where the stream ends or is damaged."""
        block = b""
        try:
            while len(block) < _BLOCK and not self._ended:
                block += self._some(_BLOCK - len(block))
        except ArchiveDamagedError as error:
            self._damage = error.detail
            self._ended = True
        except BaseException:  # the file failed: what was unpacked is lost
            self._restart()
            raise
        self._blocks.append(block)
        if len(self._blocks) > self._keep:
            self._blocks.popleft()
            self._first += 1
        if self._most_bytes is not None and (self._first + len(self._blocks) - 1) * _BLOCK > self._most_bytes:
            self._damage = "The archive unpacks to far more than its size: a bomb."
            self._ended = True

    def _some(self, size: int) -> bytes:
        if self._decompressor is None:
            self._decompressor = self._make()
        data = b""
        if self._decompressor.needs_input:
            data = self._rest or self._packed.read(_PACKED_BYTES) or b""
            self._rest = b""
            if not data:
                raise ArchiveDamagedError(CUT_SHORT)
        part = self._decompress(self._decompressor, data, size)
        if self._decompressor.eof:
            self._follow(self._decompressor.unused_data)
        return part

    @staticmethod
    def _decompress(decompressor: Decompressor, data: bytes, size: int) -> bytes:
        try:
            return decompressor.decompress(data, size)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
            raise ArchiveDamagedError("The archive is damaged: it cannot be unpacked.") from None

    def _follow(self, rest: bytes) -> None:
        """Begin with a further stream, if there is one; there may be zeros between."""
        self._decompressor = None
        rest = rest.lstrip(b"\0")
        while self._magic and len(rest) < _MAGIC_BYTES and (more := self._packed.read(_PACKED_BYTES)):
            rest = (rest + more).lstrip(b"\0")
        self._rest = rest
        self._ended = not (self._magic and rest.startswith(self._magic))


_PACKED_TARS: tuple[tuple[bytes, Make], ...] = ((b"\x1f\x8b", gzip), (b"BZh", bzip2), (b"\xfd7zXZ\0", xz))


def unpacked_file(source: Source, ratio: int, keep_bytes: int) -> Unpacked | None:
    """What a file that is packed as a whole stands for; None if it is not packed.

    Args:
        source: the file.
        ratio: how often it may be as large, unpacked.
        keep_bytes: see `Unpacked`.
    """
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    start = read_fully(source, _MAGIC_BYTES)
    for magic, make in _PACKED_TARS:
        if start.startswith(magic):
            packed = Stretch(source, threading.Lock(), 0, size)
            return Unpacked(packed, make, magic, max(RATIO_FREE_BYTES, ratio * size), keep_bytes)
    return None
