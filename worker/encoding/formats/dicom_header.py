"""The elements of a DICOM file that a picture needs, and no others: DICOM PS3.5, 7.1.

pydicom's own reader makes objects of all elements, of which an enhanced multi-frame file has hundreds for each
frame, gives a file up for one value that it cannot read, and quotes such values in warnings. Here, what is not
wanted is passed over, and a value that cannot be read is as if it were not there. Nothing that names a patient, a
place or a day is wanted.
"""

import math
import re
import struct
import zlib
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword

from ....models.sources.dicom import (
    ITEM,
    ITEM_END,
    LONG_VRS,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED_LENGTH,
    Order,
    deflate_bits,
    element_encoding,
    is_dicom,
    is_vr,
)
from ....models.states import FailureKind
from ..images import ImageFailure
from .content import Reserve

_NAMES = (
    *("SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelAspectRatio"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    *("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
    *("RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "VOILUTSequence", "LUTDescriptor", "LUTData"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence"),
    *("PixelValueTransformationSequence", "FrameVOILUTSequence"),
    *("FloatPixelData", "DoubleFloatPixelData", "PixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
_TAGS = {name: int(tag_for_keyword(name) or 0) for name in _NAMES}
_WANTED = {tag: dictionary_VR(tag)[:2].encode() for tag in _TAGS.values()}
"""The VR that each has by PS3.6, of several the first."""

_SYNTAX = 0x0002_0010
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "L", b"SL": "l", b"UV": "Q", b"SV": "q", b"FL": "f", b"FD": "d"}
_TEXTS = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
_SHORT_VRS = (_TEXTS | set(_NUMBERS) | {b"AT"}) - LONG_VRS
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

_MOST_DEPTH = 1000
_MOST_VALUE_BYTES = 1024
_PIECE = 16 * 1024**2


class Element(NamedTuple):
    """Where an element's value is."""

    vr: bytes
    """Its value representation; empty where it is written without."""
    start: int
    end: int
    has_length: bool
    """Whether its length was said, and is not up to a delimiter."""


class _Source(NamedTuple):
    """The bytes of a data set, and how elements are written in it."""

    data: bytes
    order: Order
    is_implicit: bool

    def head(self, position: int) -> tuple[int, bytes, int, int]:
        """An element's tag, VR, where its value begins, and the length. Raises struct.error at the end."""
        big = self.order == "big"
        if self.is_implicit:
            group, number, length = (_BIG_IMPLICIT if big else _LITTLE_IMPLICIT)(self.data, position)
            return group << 16 | number, b"", position + 8, length
        group, number, vr, length = (_BIG_EXPLICIT if big else _LITTLE_EXPLICIT)(self.data, position)
        tag = group << 16 | number
        if vr in _SHORT_VRS:
            return tag, vr, position + 8, length
        long = _BIG_LENGTH if big else _LITTLE_LENGTH
        if vr in LONG_VRS:
            return tag, vr, position + 12, long(self.data, position + 8)[0]
        # Whatever the file says of itself, some of its sequences may be written implicitly; some VRs are none.
        (whole,) = long(self.data, position + 4)
        if tag >> 16 != 0xFFFE and (is_vr(vr) or UNDEFINED_LENGTH != whole > len(self.data) - position - 8):
            return tag, b"", position + 8, length
        return tag, b"", position + 8, whole

    def end_of(self, start: int, end: int, is_item: bool) -> int:
        """Where something of undefined length ends, with its delimiter; `end` where that is missing."""
        items = [is_item]  # what is open: whether it is an item, or a sequence
        position = start
        while position + 8 <= end:
            tag, _, begin, length = self.head(position)
            position = begin
            if tag == ITEM_END:
                if items[-1]:  # else it was one of a length, which needs none
                    items.pop()
            elif tag == SEQUENCE_END:
                while items and items.pop():
                    pass  # an item without its delimiter
            elif length != UNDEFINED_LENGTH:
                position += length
            else:
                items.append(tag == ITEM)
                if len(items) > _MOST_DEPTH:
                    break
            if not items:
                return min(position, end)
        return end


_LITTLE_EXPLICIT, _BIG_EXPLICIT = struct.Struct("<HH2sH").unpack_from, struct.Struct(">HH2sH").unpack_from
_LITTLE_IMPLICIT, _BIG_IMPLICIT = struct.Struct("<HHL").unpack_from, struct.Struct(">HHL").unpack_from
_LITTLE_LENGTH, _BIG_LENGTH = struct.Struct("<L").unpack_from, struct.Struct(">L").unpack_from


class Header:
    """The wanted elements of a data set, or of an item of a sequence."""

    def __init__(self, source: _Source, start: int, end: int, is_item: bool = False) -> None:
        self.is_cut = False
        """Whether it ends within an element other than pixels."""
        self._source = source
        self._elements: dict[int, Element] = {}
        try:
            self._read(start, end, is_item)
        except struct.error:
            self.is_cut = True

    def _read(self, position: int, end: int, is_item: bool) -> None:
        while position < end:
            tag, vr, begin, length = self._source.head(position)
            if tag >> 16 == 0xFFFE:
                if is_item:
                    return
                position += 8  # of a sequence that is longer than it says
                continue
            is_pixels = not is_item and tag in PIXEL_DATA
            has_length = length != UNDEFINED_LENGTH
            position = begin + length if has_length else self._source.end_of(begin, end, False)
            if position > end and not is_pixels:
                self.is_cut = True
                return
            if tag in _WANTED:
                self._elements.setdefault(tag, Element(vr, begin, min(position, end), has_length))
            if is_pixels and "Rows" in self:
                return

    def __contains__(self, name: str) -> bool:
        return _TAGS[name] in self._elements

    def element(self, name: str) -> Element | None:
        """Where a value is; None where there is none."""
        return self._elements.get(_TAGS[name])

    def value(self, name: str) -> bytes:
        """A value as it is stored; empty where there is none."""
        element = self.element(name)
        return b"" if element is None else self._source.data[element.start : element.end]

    def text(self, name: str) -> str:
        """A value as text, of several the first; characters beyond ASCII are left out."""
        value = self.value(name)[:_MOST_VALUE_BYTES]
        return value.partition(b"\\")[0].strip(b" \0").decode("ascii", "ignore")

    def numbers(self, name: str) -> list[float]:
        """The numbers of a value; not a number where one cannot be read, or is infinite."""
        element = self.element(name)
        if element is None:
            return []
        value = self.value(name)[:_MOST_VALUE_BYTES]
        by_name = _WANTED[_TAGS[name]]
        if element.vr in _NUMBERS:
            return self._binary(value, element.vr)
        is_text = element.vr in _TEXTS or (by_name not in _NUMBERS and element.vr not in LONG_VRS)
        if by_name in _NUMBERS and not (is_text and _NUMBER.match(value.strip(b" \0"))):
            return self._binary(value, by_name)
        if not value.strip(b" \0"):
            return []
        return [_number(part.strip(b" \0")) for part in value.split(b"\\")]

    def number(self, name: str) -> float | None:
        """The first number of a value; None where there is none, or it cannot be read."""
        numbers = self.numbers(name)
        return numbers[0] if numbers and math.isfinite(numbers[0]) else None

    def whole(self, name: str) -> int | None:
        """As `number` has it, where it is a whole one and not negative."""
        number = self.number(name)
        return int(number) if number is not None and number >= 0 and number == int(number) else None

    def items(self, name: str, most: int) -> list[tuple[int, int]]:
        """Where the items of a sequence begin and end, of the first `most` of them."""
        element = self.element(name)
        found: list[tuple[int, int]] = []
        position = element.start if element else 0
        while element and position + 8 <= element.end and len(found) < most:
            tag, _, begin, length = self._source.head(position)
            if tag != ITEM:
                break
            if length == UNDEFINED_LENGTH:
                position = self._source.end_of(begin, element.end, True)
            else:
                position = min(begin + length, element.end)
            found.append((begin, position))
        return found

    def item(self, start: int, end: int) -> "Header":
        """The item of a sequence that begins and ends there."""
        return Header(self._source, start, end, is_item=True)

    def first(self, name: str) -> "Header | None":
        """The first item of a sequence; None where there is none."""
        items = self.items(name, 1)
        return self.item(*items[0]) if items else None

    @property
    def order(self) -> Order:
        """Of the bytes of its values."""
        return self._source.order

    def _binary(self, value: bytes, vr: bytes) -> list[float]:
        kind = ("<" if self.order == "little" else ">") + _NUMBERS[vr]
        size = struct.calcsize(kind)
        numbers = [number for (number,) in struct.iter_unpack(kind, value[: len(value) // size * size])]
        return [number if math.isfinite(number) else math.nan for number in numbers]


class DicomFile(NamedTuple):
    """What a file holds beside its pixels."""

    data: bytes
    """The file; where it is deflated, what it stands for."""
    syntax: str
    """The transfer syntax that it names, or an empty text."""
    header: Header


def read_file(data: bytes, reserve: Reserve) -> DicomFile:
    """Read the header of a DICOM file, with preamble or without.

    Args:
        data: the whole file.
        reserve: called with a number of bytes before they are allocated here.

    Raises:
        ImageFailure: TRUNCATED, it is deflated, and damaged.
    """
    syntax, start = _meta(data)
    bits = deflate_bits(syntax, data[start : start + 2])
    if bits is not None:
        data, start = _inflated(memoryview(data)[start:], bits, reserve), 0
    source = _Source(data, *element_encoding(syntax, data[start : start + 6]))
    return DicomFile(data, syntax, Header(source, start, len(data)))


def _meta(data: bytes) -> tuple[str, int]:
    """The transfer syntax that a file names, and where what is written in it begins.

    Group 0002 is explicit little endian in every file. The length that it says is not asked: it may be wrong.
    """
    source = _Source(data, "little", False)
    position, syntax = 132 if is_dicom(data) else 0, b""
    while data[position : position + 2] == b"\2\0":
        try:
            tag, _, begin, length = source.head(position)
        except struct.error:
            break
        position = begin + length
        if tag == _SYNTAX:
            syntax = data[begin : min(position, begin + _MOST_VALUE_BYTES)].strip(b"\0 ")
    return syntax.decode("ascii", "replace"), position


def _inflated(rest: memoryview, bits: int, reserve: Reserve) -> bytes:
    """What was deflated, as far as it is there."""
    unpacking = zlib.decompressobj(bits)
    parts = []
    tail: bytes | memoryview = rest
    while tail and not unpacking.eof:
        reserve(2 * _PIECE)  # the part, and its place in the whole
        try:
            parts.append(unpacking.decompress(tail, _PIECE))
        except zlib.error:
            raise ImageFailure(FailureKind.TRUNCATED, "The file is deflated DICOM, and damaged.") from None
        tail = unpacking.unconsumed_tail
    return b"".join(parts)


def _number(text: bytes) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else math.nan
