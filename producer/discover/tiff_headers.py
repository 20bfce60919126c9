"""How many pages a TIFF or BigTIFF file has."""

import struct
from typing import NamedTuple

from .reader import CutError, Reader

# The worker has the same rule and the same limits: `worker/encoding/formats/tiff_directory.py`.
_NEW_SUBFILE_TYPE = 254
_REDUCED, _MASK = 1, 4
_VALUE_TYPES = {1: 1, 3: 2, 4: 4, 16: 8}  # BYTE, SHORT, LONG, LONG8: the bytes of a number
_MAX_DIRECTORIES = 100_000
_MAX_ENTRIES = 5_000_000

# In an archive, each step back unpacks the file from its beginning.
_MAX_STEPS_BACK = 1000


class Pages(NamedTuple):
    """What the chain of a file's directories has."""

    number: int
    whole: bool
    """Whether the chain has an end: it is not cut short, nor a ring."""


def is_tiff(head: bytes) -> bool:
    """Whether content begins as TIFF or BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def count_pages(reader: Reader) -> Pages:
    """Count the pages of a file that begins as TIFF: what is neither a smaller copy of a page nor a mask.

    NewSubfileType: TIFF 6.0, p. 36.

    Args:
        reader: at the file's beginning.

    Raises:
        OSError: the stream does.
    """
    count = 0
    try:
        for subfile_type in _Directories(reader):
            count += not subfile_type & (_REDUCED | _MASK)
    except CutError:
        return Pages(count, False)
    return Pages(count, True)


class _Directories:
    """The NewSubfileType of each directory of the main chain; CutError where the chain is damaged."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        head = reader.peek(4)
        self._order = "<" if head[:2] == b"II" else ">"
        self._big = head[2:4] in (b"+\0", b"\0+")
        self._entry = struct.Struct(self._order + ("HHQ8s" if self._big else "HHI4s"))
        self._link_bytes = 8 if self._big else 4
        self._seen: set[int] = set()
        self._entries_left = _MAX_ENTRIES
        self._steps_back = 0

    def __iter__(self) -> "_Directories":
        self._reader.seek(8 if self._big else 4)
        return self

    def __next__(self) -> int:
        offset = self._number(self._reader.read(self._link_bytes))
        if not offset:
            if self._seen:
                raise StopIteration
            raise CutError
        if offset in self._seen or len(self._seen) == _MAX_DIRECTORIES or self._entries_left < 0:
            raise CutError
        self._seen.add(offset)
        self._go(offset)
        count = self._number(self._reader.read(8 if self._big else 2))
        self._entries_left -= count
        entries = self._reader.read(count * self._entry.size)
        link = self._reader.position
        subfile_type = self._value(entries, _NEW_SUBFILE_TYPE)
        self._go(link)
        return subfile_type

    def _value(self, entries: bytes, tag: int) -> int:
        """The first of a tag's numbers; 0 where there is none, or it is not of a usual type."""
        for found, kind, count, value in self._entry.iter_unpack(entries):
            if found == tag:
                size = _VALUE_TYPES.get(kind)
                if size is None:
                    return 0
                return self._number(value[:size]) if size * count <= len(value) else self._far_value(value, size)
        return 0

    def _far_value(self, value: bytes, size: int) -> int:
        try:
            self._go(self._number(value))
            return self._number(self._reader.read(size))
        except CutError:
            return 0

    def _go(self, position: int) -> None:
        if position < self._reader.position:
            self._steps_back += 1
            if self._steps_back > _MAX_STEPS_BACK:
                raise CutError
        self._reader.seek(position)

    def _number(self, content: bytes) -> int:
        return int.from_bytes(content, "little" if self._order == "<" else "big")
