"""What is known of a DICOM file before its pixels.

The few values that are needed are taken out of the elements as they pass (DICOM PS3.5, 7.1): no other value is ever
read into a text, none is quoted in a message, and a damaged or hostile file costs no more memory than a good one.
pydicom, which the workers decode with, would log and warn with values in its texts, through the settings that all
threads of a process share, and read whole what a file says is long.
"""

from typing import NamedTuple

from ...models.sources.dicom import (
    ITEM_END,
    LONG_VRS,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED_LENGTH,
    Order,
    deflate_bits,
    element_encoding,
    frame_count,
    is_dicom,
    is_vr,
)
from .reader import CutError, Inflating, Reader

# Tags as PS3.6 has them.
_MEDIA_STORAGE_CLASS = 0x0002_0002
_TRANSFER_SYNTAX = 0x0002_0010
_CLASS = 0x0008_0016
_INSTANCE = 0x0008_0018
_PATIENT = 0x0010_0020
_ISSUER = 0x0010_0021
_STUDY = 0x0020_000D
_SERIES = 0x0020_000E
_NUMBER_OF_FRAMES = 0x0028_0008
_ROWS = 0x0028_0010
_COLUMNS = 0x0028_0011
_OF_WHAT = frozenset((_MEDIA_STORAGE_CLASS, _TRANSFER_SYNTAX, _CLASS))
_OF_WHOM = frozenset((_INSTANCE, _PATIENT, _ISSUER, _STUDY, _SERIES))
_WANTED = _OF_WHAT | _OF_WHOM | {_NUMBER_OF_FRAMES, _ROWS, _COLUMNS}

_DIRECTORY = "1.2.840.10008.1.3.10"

_MOST_ELEMENTS = 1_000_000
_MOST_DEPTH = 1000
_MOST_VALUE_BYTES = 1024
_PREAMBLE_BYTES = 128


class Dicom(NamedTuple):
    """What a header says. The identifiers name people: they go no further than into pseudonyms."""

    has_picture: bool
    """Whether there are pixels, or could be: a header that is cut short tells nothing."""
    frames: int | None
    """None where the number cannot be right."""
    sop_class: str
    """What kind of object it is: empty where that is not known, as all that follows."""
    patient: str
    issuer: str
    study: str
    series: str
    instance: str


def read_dicom(reader: Reader) -> Dicom:
    """Read a header.

    Args:
        reader: at the beginning of the file, with or without preamble.

    Returns:
        What it says, as far as it can be read.

    Raises:
        OSError: the stream does.
    """
    values: dict[int, bytes] = {}
    try:
        if is_dicom(reader.peek(_PREAMBLE_BYTES + 4)):
            reader.skip(_PREAMBLE_BYTES + 4)
        has_picture = _Elements(reader, values).read()
    except CutError:
        has_picture = True

    def text(tag: int) -> str:
        return _text(values.get(tag, b""))

    return Dicom(
        has_picture,
        frame_count(values.get(_NUMBER_OF_FRAMES, b"")),
        text(_CLASS) or text(_MEDIA_STORAGE_CLASS),
        text(_PATIENT),
        text(_ISSUER),
        text(_STUDY),
        text(_SERIES),
        text(_INSTANCE),
    )


def class_name(sop_class: str) -> str | None:
    """The registered name of a kind of object (PS3.4, B.5), such as `RT Plan Storage`.

    Never the identifier itself: what is not registered may be anything.
    """
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    uid = UID(sop_class, IGNORE)  # else it would quote what is none in a warning
    return uid.name if uid.type == "SOP Class" else None


class _Elements:
    """Passes over the elements of a file; keeps those that are wanted."""

    def __init__(self, reader: Reader, values: dict[int, bytes]) -> None:
        self._reader = reader
        self._values = values
        self._order: Order = "little"
        self._implicit = False
        self._depth = 0

    def read(self) -> bool:
        """Whether there are pixels, by their element or by the measures of a picture, which come long before it.

        Raises:
            CutError: neither was there when the content ended in the middle of something.
        """
        if not self._read_meta():
            return False
        for _ in range(_MOST_ELEMENTS):
            if not self._reader.peek(1):
                if self._depth:
                    raise CutError
                return False
            tag, kind, length = self._header()
            if self._depth == 0 and (tag in PIXEL_DATA or (tag > _COLUMNS and self._has_measures())):
                return True
            if tag == ITEM_END and self._depth == 0:
                return False
            self._pass(tag, kind, length)
        raise CutError

    def _read_meta(self) -> bool:
        """Pass over the group 0002 and find out how the rest is written. Whether the rest can hold pixels."""
        while self._reader.peek(2) == b"\2\0":
            tag, kind, length = self._header()
            self._pass(tag, kind, length)
        if _text(self._values.get(_MEDIA_STORAGE_CLASS, b"")) == _DIRECTORY:
            return False
        syntax = _text(self._values.get(_TRANSFER_SYNTAX, b""))
        bits = deflate_bits(syntax, self._reader.peek(2))
        if bits is not None:
            self._reader = Reader(Inflating(self._reader, bits))
        self._order, self._implicit = element_encoding(syntax, self._reader.peek(6))
        return True

    def _header(self) -> tuple[int, bytes, int]:
        """An element's tag, the kind of its value, and the length of it."""
        head = self._reader.read(8)
        tag = self._number(head[:2]) << 16 | self._number(head[2:4])
        kind = head[4:6]
        # Whatever the file says of itself, some of its sequences may be written implicitly.
        if self._implicit or tag >> 16 == 0xFFFE or not is_vr(kind):
            return tag, b"", self._number(head[4:])
        if kind in LONG_VRS:
            return tag, kind, self._number(self._reader.read(4))
        return tag, kind, self._number(head[6:])

    def _pass(self, tag: int, kind: bytes, length: int) -> None:
        if tag in (ITEM_END, SEQUENCE_END):
            self._depth = max(0, self._depth - 1)
        elif length == UNDEFINED_LENGTH:
            self._depth += 1
            if self._depth > _MOST_DEPTH:
                raise CutError
        elif self._depth == 0 and tag in _WANTED and length <= _MOST_VALUE_BYTES:
            self._values[tag] = self._reader.read(length)
        else:
            self._reader.skip(length)

    def _has_measures(self) -> bool:
        return _ROWS in self._values and _COLUMNS in self._values

    def _number(self, content: bytes) -> int:
        return int.from_bytes(content, self._order)


def _text(value: bytes) -> str:
    """A value as text: any text, as long as the same value has the same."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.strip(" \0")
