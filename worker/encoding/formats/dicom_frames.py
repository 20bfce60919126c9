"""Where the frames of a DICOM file are: of plain pixels by their size, of compressed ones by their fragments."""

import struct
from array import array
from itertools import pairwise

from ....models.sources.dicom import ITEM, UNDEFINED_LENGTH
from ....models.states import FailureKind
from ..images import ImageFailure
from .codestreams import begins_codestream
from .content import Reserve
from .dicom_header import Element, Header

_ITEM_HEAD = struct.Struct("<HHL")
_END_OF_IMAGE = b"\xff\xd9"
"""The last marker of JPEG, JPEG-LS and JPEG 2000."""
_BYTES_PER_FRAGMENT = 64
_RESERVED_AT_ONCE = 1 << 14


class CompressedFrames:
    """The compressed frames of a file.

    The table of offsets, which may be wrong, is asked only where the fragments do not tell: where there are neither
    as many of them as frames, nor as many that begin as a picture does.
    """

    def __init__(self, data: bytes, element: Element, header: Header, frames: int, reserve: Reserve) -> None:
        """Args:
        data: the whole file.
        element: its pixels.
        header: the file's: it may hold an extended table of offsets.
        frames: how many it says it has.
        reserve: called with a number of bytes before they are allocated here.
        """
        self._data = data
        self._starts, self._ends = array("Q"), array("Q")
        self._is_cut = False
        table = self._find_fragments(element, reserve)
        self._first = self._first_fragments(frames, table, header)
        """The first fragment of each frame, and the number of fragments."""

    def __getitem__(self, index: int) -> bytes:
        """The compressed data of a frame.

        Raises:
            ImageFailure: TRUNCATED, it is not there, or not whole.
        """
        if index + 1 >= len(self._first):
            raise cut_short()
        first, end = self._first[index : index + 2]
        parts = [self._data[self._starts[number] : self._ends[number]] for number in range(first, end)]
        frame = parts[0] if len(parts) == 1 else b"".join(parts)
        is_last = end == len(self._starts)
        if (
            is_last
            and self._is_cut
            and not (begins_codestream(frame) and frame.rstrip(b"\0").endswith(_END_OF_IMAGE))
        ):
            raise cut_short()
        return frame

    def _find_fragments(self, element: Element, reserve: Reserve) -> bytes:
        """Find all fragments up to the delimiter, or to the end where that is missing; returns the basic table."""
        position, table, has_table = element.start, b"", False
        while position + 8 <= element.end:
            group, number, length = _ITEM_HEAD.unpack_from(self._data, position)
            if group << 16 | number != ITEM:
                break
            begin = position + 8
            position = begin + length
            if length == UNDEFINED_LENGTH or position > element.end:
                position, self._is_cut = element.end, True
            if not has_table:
                table, has_table = self._data[begin:position], True
                continue
            if len(self._starts) % _RESERVED_AT_ONCE == 0:
                reserve(_RESERVED_AT_ONCE * _BYTES_PER_FRAGMENT)
            self._starts.append(begin)
            self._ends.append(position)
        return table

    def _first_fragments(self, frames: int, table: bytes, header: Header) -> list[int]:
        count = len(self._starts)
        if count == frames:
            return list(range(count + 1))
        begins = [number for number in range(count) if self._begins(number)]
        if begins and begins[0] == 0 and (len(begins) == frames or frames == 1):
            return [*begins, count]
        for offsets in (_offsets(header.value("ExtendedOffsetTable"), "Q"), _offsets(table, "L")):
            found = self._by_offsets(offsets)
            if len(found) == frames > 1:
                return [*found, count]
        if begins and begins[0] == 0:
            return [*begins, count]
        # Run lengths have one fragment a frame.
        return [0, count] if frames == 1 and count else list(range(count + 1))

    def _begins(self, number: int) -> bool:
        start = self._starts[number]
        return begins_codestream(self._data[start : min(start + 16, self._ends[number])])

    def _by_offsets(self, offsets: list[int]) -> list[int]:
        """The fragments that begin at a table's offsets; none where the table is wrong."""
        if not offsets or not self._starts:
            return []
        numbers = {start - self._starts[0]: number for number, start in enumerate(self._starts)}
        found = [numbers.get(offset, -1) for offset in offsets]
        return found if found[0] == 0 and all(one < other for one, other in pairwise(found)) else []


def _offsets(table: bytes, kind: str) -> list[int]:
    size = struct.calcsize(f"<{kind}")
    return [offset for (offset,) in struct.iter_unpack(f"<{kind}", table[: len(table) // size * size])]


def is_compressed(data: bytes, element: Element, syntax_is_plain: bool) -> bool:
    """Whether pixels are in fragments: whatever the syntax says, plain ones are not, and vice versa."""
    is_fragment = data[element.start : element.start + 4] == b"\xfe\xff\0\xe0"
    return is_fragment and not (syntax_is_plain and element.has_length)


def cut_short() -> ImageFailure:
    """What is said where bytes are missing."""
    return ImageFailure(FailureKind.TRUNCATED, "The DICOM pixel data is cut short.")
