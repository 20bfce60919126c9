"""TIFF stacks: the pages of one file, each a frame `page/0`, `page/1`, …

A page is a directory of the main chain that is neither a smaller copy of a page nor a mask (NewSubfileType in TIFF
6.0, p. 36). Pages are decoded by Pillow, each through a header that names it as the file's first: all limits of
`images.py` hold for each, and no page is reached through those before it.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....models.intensity import Intensity
from ....models.states import FailureKind
from ..images import (
    ImageFailure,
    Source,
    decoding_bytes,
    grey_parts,
    grey_to_rgb,
    is_deep_grey,
    load,
    open_image,
    to_rgb,
)
from .content import Announce, EmptySlice, Reserve
from .intensity import EMPTY_RULE, SCALE_BYTES, Scale, is_empty, make_scale

_CLASSIC, _BIG = 42, 43
_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE = 254, 258
_REDUCED, _MASK = 1, 4
_BYTES_OF_TYPE = {1: 1, 3: 2, 4: 4, 16: 8}  # BYTE, SHORT, LONG, LONG8

# The producer counts by the same rule and limits: `producer/discover/tiff_headers.py`. A longer chain is no stack
# of pictures; directories that overlap could make one of any file.
_MAX_DIRECTORIES = 100_000
_MAX_ENTRIES = 5_000_000
_FRAME = re.compile(r"page/(\d{1,9})", re.ASCII)
_EMPTINESS_BYTES_PER_PIXEL = 6  # its bands, and the largest of them


@dataclass(frozen=True)
class _Layout:
    """How numbers are written in a file."""

    order: str
    """NumPy's and struct's sign of it: `<` or `>`."""
    big: bool

    @cached_property
    def entry(self) -> struct.Struct:
        """A directory's entry: tag, type, count, and the value or where it is."""
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))

    def number(self, data: bytes, offset: int, size: int) -> int:
        """An unsigned number of so many bytes; IndexError where the file ends before it."""
        part = data[offset : offset + size]
        if len(part) < size:
            raise IndexError
        return int.from_bytes(part, "little" if self.order == "<" else "big")

    def header(self, offset: int) -> bytes:
        """The file's header, with another directory as its first."""
        mark = b"II" if self.order == "<" else b"MM"
        if self.big:
            return mark + struct.pack(f"{self.order}HHHQ", _BIG, 8, 0, offset)
        return mark + struct.pack(f"{self.order}HI", _CLASSIC, offset)


@dataclass(frozen=True)
class _Page:
    offset: int
    """Of its directory."""
    may_be_deep: bool
    """Whether it could be grey of more than 8 bits."""


class _Stack:
    """A file of pages, open; for one thread."""

    format = "TIFF"

    def __init__(self, data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve) -> None:
        self._data = data
        self._max_pixels = max_pixels
        self._layout = _layout(data)
        self._pages, self._whole = _pages(data, self._layout)
        self._scale: Scale | ImageFailure | None = None
        if any(page.may_be_deep for page in self._pages):
            self._scale = self._make_scale(intensity, reserve)

    def picture(self, frame: str | None, announce: Announce) -> Image.Image:
        source = self._source(self._page(frame))
        image = open_image(source, self._max_pixels)
        announce(image.size, self._bytes(image) + _EMPTINESS_BYTES_PER_PIXEL * image.width * image.height)
        load(image, source)
        rgb = to_rgb(image, self._scaled)
        if len(self._pages) > 1 and is_empty(np.asarray(rgb)):
            raise EmptySlice(EMPTY_RULE)
        rgb.format = self.format
        return rgb

    def _page(self, frame: str | None) -> _Page:
        match = _FRAME.fullmatch(frame or "page/0")
        if match is not None and int(match[1]) < len(self._pages):
            return self._pages[int(match[1])]
        if match is not None and not self._whole:
            raise ImageFailure(FailureKind.TRUNCATED, "The TIFF file ends, or is damaged, before this page.")
        raise ImageFailure(FailureKind.MISSING, "The TIFF file has no such page.")

    def _source(self, page: _Page) -> Source:
        return Source(self._data, self._layout.header(page.offset))

    def _bytes(self, image: Image.Image) -> int:
        return decoding_bytes(image, len(self._data))

    def _make_scale(self, intensity: Intensity, reserve: Reserve) -> Scale | ImageFailure:
        try:
            return make_scale(lambda: self._deep_values(reserve), intensity, Intensity("minmax"))
        except ImageFailure as failure:
            if failure.kind is not FailureKind.NOT_AN_IMAGE:
                raise
            return failure  # nothing finite in any page of deep grey; others can be read

    def _scaled(self, image: Image.Image) -> Image.Image:
        if self._scale is None:
            raise ImageFailure(FailureKind.NOT_AN_IMAGE, "The TIFF page says twice how many bits a pixel has.")
        if isinstance(self._scale, ImageFailure):
            raise ImageFailure(self._scale.kind, self._scale.detail)
        return grey_to_rgb(image, self._scale)

    def _deep_values(self, reserve: Reserve) -> Iterator[NDArray[np.generic]]:
        """The values of all pages of deep grey, in parts. What cannot be read has no say in the stack's scale."""
        reserve(SCALE_BYTES)
        reserved = 0
        for page in self._pages:
            if not page.may_be_deep:
                continue
            source = self._source(page)
            try:
                image = open_image(source, self._max_pixels)
            except ImageFailure:
                continue
            if not is_deep_grey(image):
                continue
            need = self._bytes(image)
            if need > reserved:
                reserve(need - reserved)
                reserved = need
            try:
                load(image, source)
            except ImageFailure as failure:
                if failure.kind is FailureKind.TOO_LARGE:  # it depends on the memory that is free just now
                    raise
                continue
            for _, part in grey_parts(image):
                yield part


def open_tiff(data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve) -> _Stack:
    """Open a TIFF file of several pages.

    Pages of grey with more than 8 bits are scaled by one scale, which by default goes from the smallest to the
    largest value of all these pages; other pages are as stored. The sizes of pages may differ.

    Args:
        data: the whole file, which begins as TIFF or BigTIFF.
        intensity: how grey of more than 8 bits becomes 8 bits.
        max_pixels: width × height above which a page is not decoded.
        reserve: called with what decoding takes, where pages are decoded to find the scale.

    Returns:
        Its pages, as frames `page/0`, `page/1`, …; None stands for the first.

    Raises:
        ImageFailure: TOO_LARGE, there is no memory to find the scale.
    """
    return _Stack(data, intensity, max_pixels, reserve)


def is_tiff(data: bytes) -> bool:
    """Whether content begins as TIFF or BigTIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _layout(data: bytes) -> _Layout:
    return _Layout("<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+"))


def _pages(data: bytes, layout: _Layout) -> tuple[list[_Page], bool]:
    """The pages of a file, and whether the chain of its directories has an end: it is not cut short, nor a ring."""
    pages: list[_Page] = []
    seen: set[int] = set()
    entries_left = _MAX_ENTRIES
    link, size = (8, 8) if layout.big else (4, 4)
    try:
        while offset := layout.number(data, link, size):
            if offset in seen or len(seen) == _MAX_DIRECTORIES or entries_left < 0:
                return pages, False
            seen.add(offset)
            start = offset + (8 if layout.big else 2)
            count = layout.number(data, offset, start - offset)
            link = start + count * layout.entry.size
            if link > len(data):
                return pages, False
            entries_left -= count
            kind, bits = _kind_and_bits(data, layout, start, link)
            if not kind & (_REDUCED | _MASK):
                pages.append(_Page(offset, bits not in range(1, 9)))
    except IndexError:
        return pages, False
    return pages, bool(seen)


def _kind_and_bits(data: bytes, layout: _Layout, start: int, end: int) -> tuple[int, int]:
    """A directory's NewSubfileType and its first BitsPerSample; 0 where one is of an odd type."""
    numbers: dict[int, int] = {}
    for tag, kind, count, value in layout.entry.iter_unpack(data[start:end]):
        if tag in (_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE) and tag not in numbers:
            numbers[tag] = _first_number(data, layout, kind, count, value)
    return numbers.get(_NEW_SUBFILE_TYPE, 0), numbers.get(_BITS_PER_SAMPLE, 1)


def _first_number(data: bytes, layout: _Layout, kind: int, count: int, value: bytes) -> int:
    size = _BYTES_OF_TYPE.get(kind)
    if size is None:
        return 0
    try:
        if size * count > len(value):
            return layout.number(data, layout.number(value, 0, len(value)), size)
        return layout.number(value, 0, size)
    except IndexError:
        return 0
