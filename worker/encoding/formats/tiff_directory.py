"""The directories of a TIFF or BigTIFF file, and what of one says how its picture is stored."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ....models.states import FailureKind
from ..images import ImageFailure

CLASSIC, BIG = 42, 43

NEW_SUBFILE_TYPE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, STRIP_BYTES, PLANES, PREDICTOR = 273, 274, 277, 279, 284, 317
COLOR_MAP, TILE_WIDTH, TILE_LENGTH, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 320, 322, 323, 332, 338, 339
YCBCR_SUBSAMPLING, LERC_PARAMETERS = 530, 50674

_STORAGE = frozenset(
    {WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS, ORIENTATION, SAMPLES, STRIP_BYTES}
    | {
        PLANES,
        PREDICTOR,
        COLOR_MAP,
        TILE_WIDTH,
        TILE_LENGTH,
        INK_SET,
        EXTRA_SAMPLES,
        SAMPLE_FORMAT,
        YCBCR_SUBSAMPLING,
    }
    | {278, 292, 293, 324, 325, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 531, 532}
    | {LERC_PARAMETERS}
)
"""Tags that say how a picture is stored. All others are for people and other programs."""

_SINGLE = frozenset({WIDTH, LENGTH, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES, PLANES, PREDICTOR})
_SINGLE |= {TILE_WIDTH, TILE_LENGTH, INK_SET, 278, 292, 293}
"""Those of them that are one whole number."""

_REDUCED, _MASK = 1, 4
_BYTES_OF_TYPE = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_UNDEFINED_FORMATS = {0, 4}
"""SampleFormats that say nothing: values are then whole numbers without a sign."""
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""BYTE, SHORT, LONG, LONG8, as struct has them."""

# The producer counts by the same rule and limits: `producer/discover/tiff_headers.py`. A longer chain is no stack
# of pictures; directories that overlap could make one of any file.
_MAX_DIRECTORIES = 100_000
_MAX_ENTRIES = 5_000_000
_MAX_VALUE_BYTES = 2 * 1024**2


@dataclass(frozen=True)
class Layout:
    """How numbers are written in a file."""

    order: str
    """NumPy's and struct's sign of it: `<` or `>`."""
    big: bool

    @classmethod
    def of(cls, data: bytes) -> "Layout":
        """The layout of a file that begins as TIFF or BigTIFF."""
        return cls("<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+"))

    @cached_property
    def entry(self) -> struct.Struct:
        """A directory's entry: tag, type, count, and the value or where it is."""
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))

    @cached_property
    def count(self) -> struct.Struct:
        """How many entries a directory has."""
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @cached_property
    def link(self) -> struct.Struct:
        """Where something is in the file."""
        return struct.Struct(self.order + ("Q" if self.big else "I"))

    def header(self, offset: int) -> bytes:
        """A file's header that names the directory at `offset` as its first."""
        mark = b"II" if self.order == "<" else b"MM"
        if self.big:
            return mark + struct.pack(f"{self.order}HHHQ", BIG, 8, 0, offset)
        return mark + struct.pack(f"{self.order}HI", CLASSIC, offset)

    def number(self, data: bytes, offset: int, form: struct.Struct) -> int:
        """An unsigned number; IndexError where the file ends before it."""
        if offset + form.size > len(data):
            raise IndexError
        number: int = form.unpack_from(data, offset)[0]
        return number


@dataclass(frozen=True)
class Page:
    """A directory of the main chain that is neither a smaller copy of a page nor a mask."""

    offset: int
    """Where the directory is."""
    may_be_deep: bool
    """Whether its values could be other than whole numbers of at most 8 bits without a sign."""


@dataclass(frozen=True)
class Entry:
    """What a directory has for one tag."""

    kind: int
    count: int
    value: bytes
    """All of it, `count` values in the file's byte order."""


class Directory:
    """What a page's directory says of how the picture is stored."""

    def __init__(self, data: bytes, layout: Layout, offset: int) -> None:
        """Args:
        data: the whole file.
        layout: of the file.
        offset: where the directory is.

        Raises:
            ImageFailure: TRUNCATED, it is not whole; TOO_LARGE, its values are.
        """
        self.layout = layout
        try:
            self.entries = dict(_storage(data, layout, offset))
        except IndexError:
            raise ImageFailure(
                FailureKind.TRUNCATED, "The file begins as TIFF but its header is cut short or damaged."
            ) from None
        if set(self.numbers(SAMPLE_FORMAT)) <= _UNDEFINED_FORMATS:
            self.entries.pop(SAMPLE_FORMAT, None)

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The whole numbers of a tag; `default` where there are none."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _NUMBERS or not entry.count:
            return default
        return struct.unpack(f"{self.layout.order}{entry.count}{_NUMBERS[entry.kind]}", entry.value)

    def number(self, tag: int, default: int = 0) -> int:
        """The first of a tag's whole numbers."""
        return self.numbers(tag, (default,))[0]

    def alone(self) -> bytes:
        """A file with this directory as its only one, and without the picture: offsets are those of the file."""
        layout = self.layout
        start = len(layout.header(0))
        at = start + layout.count.size + len(self.entries) * layout.entry.size + layout.link.size
        directory, values = [layout.count.pack(len(self.entries))], []
        for tag, entry in sorted(self.entries.items()):
            if len(entry.value) <= layout.link.size:
                value = entry.value
            else:
                value = layout.link.pack(at)
                values.append(entry.value)
                at += len(entry.value)
            directory.append(layout.entry.pack(tag, entry.kind, entry.count, value))
        return b"".join([layout.header(start), *directory, layout.link.pack(0), *values])

    @cached_property
    def value_bytes(self) -> int:
        """How many bytes the values of all tags have."""
        return sum(len(entry.value) for entry in self.entries.values())


def is_tiff(data: bytes) -> bool:
    """Whether content begins as TIFF or BigTIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def find_pages(data: bytes, layout: Layout) -> tuple[list[Page], bool]:
    """The pages of a file, and whether the chain of its directories has an end: it is not cut short, nor a ring.

    NewSubfileType: TIFF 6.0, p. 36.
    """
    pages: list[Page] = []
    seen: set[int] = set()
    entries_left = _MAX_ENTRIES
    link = 8 if layout.big else 4
    try:
        while offset := layout.number(data, link, layout.link):
            if offset in seen or len(seen) == _MAX_DIRECTORIES or entries_left < 0:
                return pages, False
            seen.add(offset)
            count = layout.number(data, offset, layout.count)
            start = offset + layout.count.size
            link = start + count * layout.entry.size
            if link > len(data):
                return pages, False
            entries_left -= count
            kind, bits, sample_format = _first_numbers(data, layout, start, link)
            if not kind & (_REDUCED | _MASK):
                pages.append(Page(offset, bits not in range(1, 9) or sample_format != 1))
    except IndexError:
        return pages, False
    return pages, bool(seen)


def _first_numbers(data: bytes, layout: Layout, start: int, end: int) -> tuple[int, int, int]:
    """The first NewSubfileType, BitsPerSample and SampleFormat of a directory; 0 where one is of an odd type."""
    numbers: dict[int, int] = {}
    for tag, kind, count, value in layout.entry.iter_unpack(data[start:end]):
        if tag in (NEW_SUBFILE_TYPE, BITS, SAMPLE_FORMAT) and tag not in numbers:
            numbers[tag] = 0
            if kind in _NUMBERS:
                form = struct.Struct(layout.order + _NUMBERS[kind])
                if form.size * count <= len(value):
                    numbers[tag] = form.unpack_from(value)[0]
                else:
                    far = layout.link.unpack(value)[0]
                    numbers[tag] = form.unpack_from(data, far)[0] if far + form.size <= len(data) else 0
    return numbers.get(NEW_SUBFILE_TYPE, 0), numbers.get(BITS, 1), numbers.get(SAMPLE_FORMAT, 1)


def _storage(data: bytes, layout: Layout, offset: int) -> Iterator[tuple[int, Entry]]:
    """The entries of `_STORAGE`; of two with the same tag, the last. IndexError where the file ends too early."""
    count = layout.number(data, offset, layout.count)
    start = offset + layout.count.size
    end = start + count * layout.entry.size
    if end > len(data):
        raise IndexError
    left = _MAX_VALUE_BYTES
    for tag, kind, number, value in layout.entry.iter_unpack(data[start:end]):
        if tag not in _STORAGE or kind not in _BYTES_OF_TYPE:
            continue
        if tag in _SINGLE:
            if kind not in _NUMBERS or not number:
                continue
            number = 1  # noqa: PLW2901
        size = number * _BYTES_OF_TYPE[kind]
        left -= size
        if left < 0:
            raise ImageFailure(FailureKind.TOO_LARGE, "The TIFF page has more strips or tiles than are read.")
        if size > len(value):
            far = layout.link.unpack(value)[0]
            if far + size > len(data):
                raise IndexError
            value = data[far : far + size]  # noqa: PLW2901
        yield tag, Entry(kind, number, value[:size])
