"""NIfTI-1 and NIfTI-2 volumes, plain or gzipped, and FreeSurfer's MGH and MGZ: bytes → slices.

A frame `axial/012` is a slice of the volume in its closest canonical orientation: the axis of the file that goes
most to the patient's right, front or head is taken for that direction, and no slice is interpolated. Slices are
shown as radiologists see them: the patient's right on the left, the front or the head at the top, and in a sagittal
slice the front on the left. Of a series of volumes, such as a time series, the first is read.

nibabel reads the header; the values stay as they are in the file, and one slice at a time is scaled. A volume takes
its own size once when it is gzipped, and nothing when it is not.
"""

import logging
import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....models.intensity import Intensity
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

_INTENTS_OF_CIFTI = range(3000, 3100)
_COLOURS = {128: 3, 2304: 4}
_NUMBERS = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_COMPLEX = {32, 1792, 2048}
_MGH_BEGINNING = struct.Struct(">6i")  # version, width, height, depth, volumes, type
_MGH_TYPES = {0, 1, 3, 4}
_START_BYTES = 560
"""More than any header that is read here has."""


@dataclass(frozen=True)
class _Header:
    """What a file says of its first volume."""

    format: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    """Of one value, or of one band of a colour."""
    bands: int
    """1: grey; 3: RGB; 4: RGB and alpha."""
    offset: int
    """Bytes in the file before the volume."""
    axes: tuple["_Axis", ...]
    """Those to the patient's right, front and head."""
    slope: float
    intercept: float
    shown: Scale | None
    """From the value that the file says should be black to the one that should be white."""
    volumes: int

    @property
    def values(self) -> int:
        return math.prod(self.shape) * self.bands

    @property
    def end(self) -> int:
        return self.offset + self.values * self.dtype.itemsize


@dataclass(frozen=True)
class _Axis:
    """The axis of a file that is closest to one direction of the patient."""

    index: int
    step: int
    """1: indices grow with the direction; -1: against it."""
    zoom: float
    """Millimetres from one index to the next; 0: unknown."""


class _Volume:
    """A file's first volume, open; for one thread."""

    def __init__(self, header: _Header, values: NDArray[Any], intensity: Intensity, max_pixels: int) -> None:
        self.format = header.format
        self._header = header
        self._max_pixels = max_pixels
        self._flat = values
        shape = (header.bands, *header.shape) if header.bands > 1 else header.shape
        self._volume = values.reshape(shape, order="F")
        self._axes = header.axes
        self._scale = None if header.bands > 1 else make_scale(self._parts, intensity, header.shown or _USUAL)

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

    def _cut(self, across: _Axis, up: _Axis, left: _Axis, index: int) -> NDArray[Any]:
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
        intensity: how values become 8 bits. `auto` is from `cal_min` to `cal_max` where the header has them, else
            from the 0.5 to the 99.5 percentile of the volume. Colours are as stored.
        max_pixels: width × height above which a slice is not made.
        reserve: called with the size of the volume before it is unpacked.

    Returns:
        Its first volume, with slices as frames such as `axial/012`; None stands for the middle axial slice.

    Raises:
        ImageFailure: TRUNCATED, NOT_AN_IMAGE or UNSUPPORTED; TOO_LARGE, it does not fit into memory.
    """
    try:
        header = _header(start(data))
        reserve(min(SCALE_BYTES, _SCALE_BYTES_PER_VALUE * header.values) + _BYTES_AROUND)
        if not _is_gzip(data) and header.end > len(data):
            raise _cut_short()
        content = _unpacked(data, header, reserve) if _is_gzip(data) else data
        values = np.frombuffer(content, header.dtype, header.values, header.offset)
        return _Volume(header, values, intensity, max_pixels)
    except MemoryError as error:
        raise ImageFailure(FailureKind.TOO_LARGE, "The volume did not fit into memory.") from error


def is_nifti(data: bytes) -> bool:
    """Whether content is NIfTI or MGH, plain or gzipped: only its beginning is unpacked."""
    block = start(data)
    return _is_second(block) or block[344:348] in (b"n+1\0", b"ni1\0") or _is_mgh(block)


def start(data: bytes) -> bytes:
    """The first bytes of what a file holds, unpacked if it is gzipped: b"" where they cannot be."""
    if not _is_gzip(data):
        return data[:_START_BYTES]
    block = bytearray(_START_BYTES)
    try:
        return bytes(block[: _Inflater(data).fill(memoryview(block))])
    except zlib.error:
        return b""


def _is_gzip(data: bytes) -> bool:
    return data[:2] == b"\x1f\x8b"


def _is_second(block: bytes) -> bool:
    return block[4:8] in (b"n+2\0", b"ni2\0") and block[8:12] == b"\r\n\x1a\n"


def _is_mgh(block: bytes) -> bool:
    if len(block) < _MGH_BEGINNING.size:
        return False
    version, *lengths, kind = _MGH_BEGINNING.unpack_from(block)
    return version == 1 and min(lengths) > 0 and kind in _MGH_TYPES


def _cut_short() -> ImageFailure:
    return ImageFailure(FailureKind.TRUNCATED, "The file ends before its volume does.")


def _damaged(what: str) -> ImageFailure:
    return ImageFailure(FailureKind.NOT_AN_IMAGE, f"The volume's header is damaged: {what}.")


def _unpacked(data: bytes, header: _Header, reserve: Reserve) -> NDArray[np.uint8]:
    """What a gzipped file holds, to the end of the first volume."""
    if header.end > len(data) * _MOST_DEFLATED:
        raise _cut_short()
    reserve(header.end)
    content: NDArray[np.uint8] = np.empty(header.end, np.uint8)
    inflater = _Inflater(data)
    try:
        whole = inflater.fill(content.data) == header.end
        if not whole or (header.volumes == 1 and not inflater.ends_well()):
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


def _nibabel() -> Any:
    """The library, which a process that reads other files need not load."""
    try:
        import nibabel
        from nibabel.freesurfer import mghformat  # noqa: F401  (it becomes a part of nibabel)
    except ImportError as error:
        raise ImageFailure(
            FailureKind.UNSUPPORTED, "The file is NIfTI or MGH: pip install 'scanomaly[medical]' on the worker."
        ) from error
    # What it would log is of the header, which may hold names.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
    return nibabel


def _header(block: bytes) -> _Header:
    try:
        with np.errstate(all="ignore"):
            return _mgh_header(block) if _is_mgh(block) else _nifti_header(block)
    except (ImageFailure, MemoryError):
        raise
    except Exception as error:  # nibabel's own and NumPy's: what they say may be of the header
        raise ImageFailure(
            FailureKind.NOT_AN_IMAGE, f"The volume's header cannot be read ({type(error).__name__})."
        ) from None


def _nifti_header(block: bytes) -> _Header:
    second = _is_second(block)
    magic = block[4:8] if second else block[344:348]
    if magic[:2] == b"ni":
        raise ImageFailure(
            FailureKind.UNSUPPORTED,
            "The file is half of a NIfTI pair (.hdr and .img): convert it to NIfTI (.nii).",
        )
    kind = _nibabel().Nifti2Header if second else _nibabel().Nifti1Header
    size = kind.template_dtype.itemsize
    if len(block) < size:
        raise _cut_short()
    header = kind(block[:size], check=False)
    dtype, bands = _values(int(header["datatype"]), header.endianness)
    if int(header["intent_code"]) in _INTENTS_OF_CIFTI and header.get_data_shape()[:3] == (1, 1, 1):
        raise ImageFailure(FailureKind.UNSUPPORTED, "The file is CIFTI, which holds no volume of pictures.")
    header = kind(block[:size], check=True)
    slope, intercept = header.get_slope_inter()
    low, high = float(header["cal_min"]), float(header["cal_max"])
    shape = tuple(int(length) for length in header.get_data_shape())
    return _Header(
        format="NIfTI",
        shape=_spatial(shape),
        dtype=dtype,
        bands=bands,
        offset=_offset(header.get_data_offset(), size),
        axes=_axes(header.get_best_affine()),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if slope is None else intercept,
        shown=Scale(low, high) if math.isfinite(low) and math.isfinite(high) and high > low else None,
        volumes=math.prod(shape[3:]),
    )


def _mgh_header(block: bytes) -> _Header:
    kind = _nibabel().freesurfer.mghformat.MGHHeader
    size = kind._hdrdtype.itemsize
    if len(block) < size:
        raise _cut_short()
    header = kind(block[:size], check=True)
    shape = tuple(int(length) for length in header.get_data_shape())
    return _Header(
        format="MGH",
        shape=_spatial(shape),
        dtype=np.dtype(header.get_data_dtype()).newbyteorder(">"),
        bands=1,
        offset=header.get_data_offset(),
        axes=_axes(header.get_affine()),
        slope=1.0,
        intercept=0.0,
        shown=None,
        volumes=math.prod(shape[3:]),
    )


def _values(code: int, order: Literal["<", ">"]) -> tuple[np.dtype[Any], int]:
    """The type of a value or band, and the number of bands, by NIfTI's code."""
    if code in _COLOURS:
        return np.dtype(np.uint8), _COLOURS[code]
    if code in _NUMBERS:
        return np.dtype(_NUMBERS[code]).newbyteorder(order), 1
    if code in _COMPLEX:
        raise ImageFailure(
            FailureKind.UNSUPPORTED, "The volume's values are complex: convert it to one of their magnitudes."
        )
    raise ImageFailure(FailureKind.UNSUPPORTED, "The volume's type of values is not read: convert it to float32.")


def _spatial(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The first three lengths; a 2-D image is one slice."""
    if len(shape) < 2:
        raise _damaged("it has fewer than two dimensions")
    if min(shape) < 1:
        raise _damaged("a dimension is not positive")
    width, height, depth = (*shape, 1)[:3]
    return width, height, depth


def _offset(offset: int, header_bytes: int) -> int:
    if offset < header_bytes:
        raise _damaged("the volume begins inside of it")
    return offset


def _axes(affine: Any) -> tuple[_Axis, ...]:
    """The axis of the file that is closest to each of right, front and head.

    Args:
        affine: 4 × 4, from indices to millimetres to the patient's right, front and head.
    """
    affine = np.asarray(affine, np.float64)
    if not np.isfinite(affine).all():
        raise _damaged("its orientation is not finite")
    orientations = _nibabel().io_orientation(affine)
    lost = [direction for direction in range(3) if direction not in orientations[:, 0]]
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    axes: dict[int, _Axis] = {}
    for index, (direction, step) in enumerate(orientations):
        if math.isnan(direction):  # the affine makes it a point, as 2-D images have it: it takes what is left
            axes[lost.pop(0)] = _Axis(index, 1, 0.0)
        else:
            axes[int(direction)] = _Axis(index, int(step), float(zooms[index]))
    return tuple(axes[direction] for direction in range(3))


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
