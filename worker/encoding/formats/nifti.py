"""NIfTI-1 and NIfTI-2 volumes, plain or gzipped, and FreeSurfer's MGH and MGZ: bytes → slices.

A frame `axial/012` is a slice of the volume in its closest canonical orientation: the axis of the file that goes
most to the patient's right, front or head is taken for that direction, and no slice is interpolated. Slices are
shown as radiologists see them: the patient's right on the left, the front or the head at the top, and in a sagittal
slice the front on the left. Of a series of volumes, such as a time series, the first is read.

The values stay as they are in the file, and one slice at a time is scaled. A volume takes its own size once when it
is gzipped, and nothing when it is not.
"""

import math
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....models.intensity import Intensity
from ....models.sources import nifti
from ....models.sources.nifti import START_BYTES, Axis, VolumeHeader, VolumeHeaderError
from ....models.states import FailureKind
from ..images import ImageFailure
from .content import Announce, EmptySlice, Reserve
from .intensity import EMPTY_RULE, SCALE_BYTES, Scale, is_empty, make_scale

_RIGHT, _FRONT, _HEAD = 0, 1, 2
#: By plane: the direction across slices, the one up a picture and the one to its left.
_PLANES = {
    "axial": (_HEAD, _FRONT, _RIGHT),
    "coronal": (_FRONT, _HEAD, _RIGHT),
    "sagittal": (_RIGHT, _HEAD, _FRONT),
}
_FRAME = re.compile(r"(axial|coronal|sagittal)/(\d{1,9})", re.ASCII)

_USUAL = Intensity("percentile", 0.5, 99.5)
_RANGE = Intensity("minmax")

_SAME_ZOOM = 1.01
_MAX_STRETCH = 10.0
_MAX_ZOOM_RATIO = 100.0
"""Of two zooms of one volume: what is more was not meant."""

_PART_VALUES = 1 << 18
_PART_BYTES = 1 << 20
_PACKED_PART_BYTES = 1 << 16
_MOST_DEFLATED = 1032
"""Bytes that one byte of deflate can become: zlib's documentation, "Maximum Compression Factor"."""
_BYTES_AROUND = 8 * 1024**2
_SCALE_BYTES_PER_VALUE = 32
_BYTES_PER_VALUE = 32
"""While a slice is scaled: its values as float64, NumPy's passing copies, and the result."""
_BYTES_PER_PIXEL = 12
"""Of a picture: grey and RGB, before and after it is stretched."""


class _Volume:
    """A file's first volume, open; for one thread."""

    def __init__(self, header: VolumeHeader, values: NDArray[Any], intensity: Intensity, max_pixels: int) -> None:
        self.format = header.format
        self._header = header
        self._max_pixels = max_pixels
        self._flat = values
        shape = (header.bands, *header.shape) if header.bands > 1 else header.shape
        self._volume = values.reshape(shape, order="F")
        self._axes = header.axes
        self._scale = self._make_scale(intensity) if header.bands == 1 else None

    def picture(self, frame: str | None, announce: Announce) -> Image.Image:
        plane, index = self._slice_of(frame)
        across, up, left = (self._axes[direction] for direction in _PLANES[plane])
        height, width = (self._header.shape[axis.index] for axis in (up, left))
        if width * height > self._max_pixels:
            raise ImageFailure(
                FailureKind.TOO_LARGE,
                f"The slice has more than {self._max_pixels:,} pixels (SCANOMALY_MAX_PIXELS).",
            )
        size = _square_pixels((width, height), (left.zoom, up.zoom), self._max_pixels)
        values, pixels = width * height * self._header.bands, size[0] * size[1]
        announce(size, _BYTES_PER_VALUE * values + _BYTES_PER_PIXEL * (width * height + pixels))
        image = self._image(self._cut(across, up, left, index), plane)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        rgb = image.convert("RGB")
        rgb.format = self.format
        return rgb

    def _slice_of(self, frame: str | None) -> tuple[str, int]:
        if frame is None:
            return "axial", self._header.shape[self._axes[_HEAD].index] // 2
        match = _FRAME.fullmatch(frame)
        if match is not None:
            across = self._axes[_PLANES[match[1]][0]]
            if int(match[2]) < self._header.shape[across.index]:
                return match[1], int(match[2])
        raise ImageFailure(FailureKind.MISSING, "The volume has no such slice.")

    def _cut(self, across: Axis, up: Axis, left: Axis, index: int) -> NDArray[Any]:
        """A slice's stored values, height × width or height × width × bands: rows go down and columns right."""
        slices: list[Any] = [slice(None)] * 3
        slices[across.index] = index if across.step > 0 else self._header.shape[across.index] - 1 - index
        for axis in (up, left):
            slices[axis.index] = slice(None, None, -axis.step)
        part = self._volume[(..., *slices)]
        if up.index > left.index:
            part = np.swapaxes(part, -1, -2)
        return np.moveaxis(part, 0, -1) if self._header.bands > 1 else part

    def _image(self, part: NDArray[Any], plane: str) -> Image.Image:
        """A slice in 8 bits, or an EmptySlice where it is one of several and nothing is in it."""
        if self._scale is not None:
            pixels = np.ascontiguousarray(self._scale(self._scaled(part)))
        else:
            pixels = np.ascontiguousarray(part[..., :3])
        several = self._header.shape[self._axes[_PLANES[plane][0]].index] > 1
        if several and is_empty(pixels):
            raise EmptySlice(EMPTY_RULE)
        return Image.fromarray(pixels)

    def _make_scale(self, intensity: Intensity) -> Scale:
        """As asked for. The default is the header's range, unless it makes one grey of all values."""
        if self._header.shown is None or intensity.kind != "auto":
            return make_scale(self._parts, intensity, _USUAL)
        scale, values = Scale(*self._header.shown), make_scale(self._parts, _RANGE, _USUAL)
        grey = scale(np.array([values.low, values.high]))
        is_of_others = values.low < values.high and grey[0] == grey[1]
        return make_scale(self._parts, _USUAL, _USUAL) if is_of_others else scale

    def _parts(self) -> Iterator[NDArray[Any]]:
        """All values of the volume, in parts."""
        for start in range(0, self._flat.size, _PART_VALUES):
            yield self._scaled(self._flat[start : start + _PART_VALUES])

    def _scaled(self, values: NDArray[Any]) -> NDArray[Any]:
        """Stored values as what they stand for: as they are, or float64."""
        header = self._header
        if (header.slope, header.intercept) == (1.0, 0.0):
            return values.astype(values.dtype.newbyteorder("="), copy=False)
        with np.errstate(all="ignore"):
            return values.astype(np.float64) * header.slope + header.intercept


def open_nifti(data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve) -> _Volume:
    """Open a NIfTI or MGH file, plain or gzipped.

    Args:
        data: the whole file. It is kept, and read in place, when it is not gzipped.
        intensity: how values become 8 bits. `auto` is from `cal_min` to `cal_max`, if the header has them and they
            do not make one grey of all values; else from the 0.5 to the 99.5 percentile of the volume. Colours are
            as stored.
        max_pixels: width × height above which a slice is not made.
        reserve: called with the size of the volume before it is unpacked.

    Returns:
        Its first volume, with slices as frames such as `axial/012`; None stands for the middle axial slice.

    Raises:
        ImageFailure: TRUNCATED, NOT_AN_IMAGE or UNSUPPORTED; TOO_LARGE, it does not fit into memory.
    """
    try:
        header = _header(start(data))
        values = math.prod(header.shape) * header.bands
        end = header.offset + values * np.dtype(header.dtype).itemsize
        reserve(min(SCALE_BYTES, _SCALE_BYTES_PER_VALUE * values) + _BYTES_AROUND)
        if not _is_gzip(data) and end > len(data):
            raise _cut_short()
        content = _unpacked(data, end, header.volumes > 1, reserve) if _is_gzip(data) else data
        return _Volume(header, np.frombuffer(content, header.dtype, values, header.offset), intensity, max_pixels)
    except MemoryError as error:
        raise ImageFailure(FailureKind.TOO_LARGE, "The volume did not fit into memory.") from error


def is_nifti(data: bytes) -> bool:
    """Whether content is NIfTI or MGH, plain or gzipped: only its beginning is unpacked."""
    return nifti.is_nifti(start(data))


def start(data: bytes) -> bytes:
    """The first bytes of what a file holds, unpacked if it is gzipped: b"" where they cannot be."""
    if not _is_gzip(data):
        return data[:START_BYTES]
    block = bytearray(START_BYTES)
    try:
        return bytes(block[: _Inflater(data).fill(memoryview(block))])
    except zlib.error:
        return b""


def _is_gzip(data: bytes) -> bool:
    return data[:2] == b"\x1f\x8b"


def _cut_short() -> ImageFailure:
    return ImageFailure(FailureKind.TRUNCATED, "The file ends before its volume does.")


def _header(block: bytes) -> VolumeHeader:
    try:
        return nifti.read_header(block)
    except VolumeHeaderError as error:
        raise ImageFailure(error.kind, error.detail) from None
    except ImportError as error:
        raise ImageFailure(
            FailureKind.UNSUPPORTED, "The file is NIfTI or MGH: pip install 'scanomaly[medical]' on the worker."
        ) from error


def _unpacked(data: bytes, end: int, goes_on: bool, reserve: Reserve) -> NDArray[np.uint8]:
    """What a gzipped file holds, to the end of the first volume: whether there is more tells `goes_on`."""
    if end > len(data) * _MOST_DEFLATED:
        raise _cut_short()
    reserve(end)
    content: NDArray[np.uint8] = np.empty(end, np.uint8)
    inflater = _Inflater(data)
    try:
        whole = inflater.fill(content.data) == end
        if not whole or not (goes_on or inflater.ends_well()):
            raise _cut_short()
    except zlib.error as error:
        raise ImageFailure(FailureKind.TRUNCATED, "The gzip data is damaged.") from error
    return content


class _Inflater:
    """Unpacks a gzip file of one member or several, and never more than it is asked for. Raises zlib.error."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._waiting = b""
        self._member = zlib.decompressobj(wbits=31)

    def fill(self, target: memoryview) -> int:
        """Unpack as many bytes as a buffer has room for, or as there are; returns how many."""
        filled = 0
        while filled < len(target):
            part = self._next(min(_PART_BYTES, len(target) - filled))
            if part is None:
                break
            target[filled : filled + len(part)] = part
            filled += len(part)
        return filled

    def ends_well(self) -> bool:
        """Whether the member ends, with the right checksum, soon after what was unpacked: no long rest is read."""
        left = _PART_BYTES
        while not self._member.eof and left > 0:
            part = self._next(left)
            if part is None:
                return False
            left -= len(part)
        return True

    def _next(self, size: int) -> bytes | None:
        """Up to so many bytes more, at times none; None at the end."""
        if self._member.eof:
            self._waiting = self._member.unused_data or self._more()
            # What follows the last member and is none does not matter: some tools fill files up with zeros.
            if self._waiting[:1] != b"\x1f":
                return None
            self._member = zlib.decompressobj(wbits=31)
        source = self._waiting or self._more()
        part = self._member.decompress(source, size)  # without a source, what it still has
        self._waiting = self._member.unconsumed_tail
        return part if part or source else None

    def _more(self) -> bytes:
        part = bytes(self._data[self._at : self._at + _PACKED_PART_BYTES])
        self._at += len(part)
        return part


def _square_pixels(size: tuple[int, int], zooms: tuple[float, float], max_pixels: int) -> tuple[int, int]:
    """The size at which a picture's pixels are square.

    The finer of its two sides keeps its pixels, unless the other one would have to be stretched more than tenfold,
    or the picture would have too many pixels: then the finer one loses some.

    Args:
        size: width and height, in pixels.
        zooms: a pixel's width and height, in millimetres; 0 where unknown.
        max_pixels: that the picture may have.
    """
    fine, coarse = min(zooms), max(zooms)
    if not (math.isfinite(fine) and math.isfinite(coarse)) or fine <= 0:
        return size
    if coarse <= fine * _SAME_ZOOM or coarse > fine * _MAX_ZOOM_RATIO:
        return size
    lengths = [count * zoom for count, zoom in zip(size, zooms, strict=True)]
    pixel = max(fine, coarse / _MAX_STRETCH, math.sqrt(lengths[0] * lengths[1] / max_pixels))
    width, height = (max(1, round(length / pixel)) for length in lengths)
    while width * height > max_pixels:  # rounded up, or one pixel thin
        width, height = (width, height - 1) if height > width else (width - 1, height)
    return width, height
