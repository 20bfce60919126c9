"""TIFF files: one picture, or pages of which each is a frame `page/0`, `page/1`, …

A page is a directory of the main chain that is neither a smaller copy of a page nor a mask. Pages of at most 8 bits
a sample are decoded by Pillow, each through a header that names it as the file's first, so that no page is reached
through those before it. All others, and what Pillow does not know, are read by tifffile (`tiff_samples.py`).
"""

import re
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....models.intensity import Intensity
from ....models.states import FailureKind
from ..images import ImageFailure, Source, decoding_bytes, load, open_image, own_scale, to_rgb
from . import tiff_directory as tags
from .content import Announce, EmptySlice, Reserve
from .intensity import EMPTY_RULE, SCALE_BYTES, Scale, is_empty, make_scale
from .tiff_directory import Directory, Layout, Page, find_pages
from .tiff_samples import SampledPage

_FRAME = re.compile(r"page/(\d{1,9})", re.ASCII)
_EMPTINESS_BYTES_PER_PIXEL = 6  # its bands, and the largest of them

_YCBCR, _UNCOMPRESSED, _OLD_JPEG = 6, 1, 6
_PILLOWS_BITS = {1, 2, 4, 8}
_PILLOWS_CODECS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32809, 32946, 34925, 50000}
_FAX = {2, 3, 4}
_PREDICTED = {5, 8, 32946, 34925, 50000}
"""The codecs with which libtiff looks at Predictor."""
_IN_PLANES = 2
_LOW_BITS_FIRST = 2


class _OpenPage(Protocol):
    """A page whose header was read; for one thread."""

    size: tuple[int, int]

    @property
    def is_deep(self) -> bool: ...
    @property
    def bytes_needed(self) -> int: ...
    def load(self) -> None: ...
    def values(self) -> NDArray[Any]: ...
    def grey_or_rgb(self, scale: Any) -> Image.Image: ...


class _PillowPage:
    """A page that Pillow reads."""

    is_deep = False

    def __init__(self, source: Source, turn: int, max_pixels: int) -> None:
        self._source = source
        self._image = open_image(source, max_pixels)
        # Pillow reads all of EXIF to find the page's own Orientation there, and fails where any of it is damaged.
        orientation = Image.Exif()
        orientation[tags.ORIENTATION] = turn
        setattr(self._image, "getexif", lambda: orientation)  # noqa: B010
        self.size = self._image.size
        self.bytes_needed = decoding_bytes(self._image, len(source.getvalue()))

    def load(self) -> None:
        load(self._image, self._source)

    def values(self) -> NDArray[Any]:
        raise NotImplementedError

    def grey_or_rgb(self, scale: Any) -> Image.Image:
        return to_rgb(self._image)


class TiffContent:
    """A TIFF file, open; for one thread."""

    format = "TIFF"

    def __init__(
        self, data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve, has_frames: bool
    ) -> None:
        self._data = data
        self._intensity = intensity
        self._max_pixels = max_pixels
        self._has_frames = has_frames
        self._layout = Layout.of(data)
        self._pages, self._whole = find_pages(data, self._layout)
        self._scale: Scale | ImageFailure | None = None
        if has_frames and any(page.may_be_deep for page in self._pages):
            self._scale = self._make_scale(reserve)

    def picture(self, frame: str | None, announce: Announce) -> Image.Image:
        if frame is not None and not self._has_frames:
            raise ImageFailure(FailureKind.MISSING, "The file has one picture, and no frames.")
        page = self._open(self._page(frame))
        extra = _EMPTINESS_BYTES_PER_PIXEL * page.size[0] * page.size[1] if self._has_frames else 0
        announce(page.size, page.bytes_needed + extra + (SCALE_BYTES if self._is_scaled_alone(page) else 0))
        page.load()
        rgb = page.grey_or_rgb(self._scale_of(page) if page.is_deep else None)
        if self._has_frames and len(self._pages) > 1 and is_empty(np.asarray(rgb)):
            raise EmptySlice(EMPTY_RULE)
        rgb.format = self.format
        return rgb

    def _page(self, frame: str | None) -> Page:
        match = _FRAME.fullmatch(frame or "page/0")
        if match is not None and int(match[1]) < len(self._pages):
            return self._pages[int(match[1])]
        if match is not None and not self._whole:
            raise ImageFailure(FailureKind.TRUNCATED, "The TIFF file ends, or is damaged, before this page.")
        raise ImageFailure(FailureKind.MISSING, "The TIFF file has no such page.")

    def _open(self, page: Page) -> _OpenPage:
        directory = Directory(self._data, self._layout, page.offset)
        if _is_for_pillow(directory):
            try:
                source = Source(self._data, self._layout.header(page.offset))
                return _PillowPage(source, directory.number(tags.ORIENTATION, 1), self._max_pixels)
            except ImageFailure as failure:
                if failure.kind is FailureKind.TOO_LARGE:
                    raise
        return SampledPage(self._data, directory, self._max_pixels)

    def _is_scaled_alone(self, page: _OpenPage) -> bool:
        return page.is_deep and not self._has_frames and self._intensity.kind not in ("auto", "minmax")

    def _make_scale(self, reserve: Reserve) -> Scale | ImageFailure:
        """The scale of all pages of deep grey or colours."""
        try:
            return make_scale(lambda: self._deep_values(reserve), self._intensity, Intensity("minmax"))
        except ImageFailure as failure:
            if failure.kind is not FailureKind.NOT_AN_IMAGE:
                raise
            return failure  # nothing finite in any deep page; others can be read

    def _scale_of(self, page: _OpenPage) -> Any:
        """What makes 8 bits of a loaded page's values."""
        if self._is_scaled_alone(page):
            return make_scale(lambda: [page.values()], self._intensity, Intensity("minmax"))
        if not self._has_frames:
            return own_scale([page.values()])
        if isinstance(self._scale, ImageFailure):
            raise ImageFailure(self._scale.kind, self._scale.detail)
        return self._scale

    def _deep_values(self, reserve: Reserve) -> Iterator[NDArray[Any]]:
        """The values of all deep pages. What cannot be read has no say in the stack's scale."""
        reserve(SCALE_BYTES)
        reserved = 0
        for place in self._pages:
            if not place.may_be_deep:
                continue
            try:
                page = self._open(place)
            except ImageFailure:
                continue
            if not page.is_deep:
                continue
            if page.bytes_needed > reserved:
                reserve(page.bytes_needed - reserved)
                reserved = page.bytes_needed
            try:
                page.load()
            except ImageFailure as failure:
                if failure.kind is FailureKind.TOO_LARGE:  # it depends on the memory that is free just now
                    raise
                continue
            yield page.values()


def open_tiff(
    data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve, has_frames: bool = True
) -> TiffContent:
    """Open a TIFF file.

    Grey of more than 8 bits, and values that have a sign, are floats or colours of more than 16 bits, are scaled:
    those of a file with frames by one scale, which by default goes from the smallest to the largest of all these
    values; without frames by that of the first page. Everything else is as stored. The sizes of pages may differ.

    Args:
        data: the whole file, which begins as TIFF or BigTIFF.
        intensity: how deep values become 8 bits.
        max_pixels: width × height above which a page is not decoded.
        reserve: called with what decoding takes, where pages are decoded to find the scale.
        has_frames: whether pages are scans of their own.

    Returns:
        Its pages, as frames `page/0`, `page/1`, …; None stands for the first.

    Raises:
        ImageFailure: TOO_LARGE, there is no memory to find the scale.
    """
    return TiffContent(data, intensity, max_pixels, reserve, has_frames)


def _is_for_pillow(directory: Directory) -> bool:
    """Whether Pillow reads a page rightly, if it reads it."""
    compression = directory.number(tags.COMPRESSION, 1)
    return (
        compression in _PILLOWS_CODECS
        # It takes all old JPEG for colours.
        and not (compression == _OLD_JPEG and directory.number(tags.SAMPLES, 3) == 1)
        and set(directory.numbers(tags.BITS, (1,))) <= _PILLOWS_BITS
        and set(directory.numbers(tags.SAMPLE_FORMAT, (1,))) == {1}
        # Without it, Pillow takes 0 for white.
        and (tags.PHOTOMETRIC in directory.entries or compression in _FAX | {_OLD_JPEG})
        and (compression in _PREDICTED | {_UNCOMPRESSED} or directory.number(tags.PREDICTOR, 1) == 1)
        and not (compression == _UNCOMPRESSED and _needs_libtiff(directory))
    )


def _needs_libtiff(directory: Directory) -> bool:
    """Whether Pillow's own decoder of uncompressed pixels would take them for others."""
    if directory.number(tags.PLANES, 1) == _IN_PLANES or directory.number(tags.FILL_ORDER, 1) == _LOW_BITS_FIRST:
        return True
    pixels = directory.number(tags.WIDTH) * directory.number(tags.LENGTH)
    is_subsampled = sum(directory.numbers(tags.STRIP_BYTES)) < 3 * pixels
    return directory.number(tags.PHOTOMETRIC) == _YCBCR and is_subsampled
