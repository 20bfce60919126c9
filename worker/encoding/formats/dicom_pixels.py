"""A DICOM file's bytes → pictures, with pydicom.

No error and no log line of the libraries is told: they quote values of headers, which may name a patient.
"""

import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from ....models.intensity import Intensity
from ....models.sources.dicom import is_dicom
from ....models.states import FailureKind
from ..images import ImageFailure, too_many_pixels
from . import dicom_codecs
from .codestreams import read_codestream
from .content import Announce, EmptySlice, Reserve
from .dicom_tables import look_up, look_up_colours
from .intensity import EMPTY_RULE, SCALE_BYTES, Scale, by_table, is_empty, make_scale

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PLAIN = b"1.2.840.10008.1.2.1\0\0\0"
_SYNTAX_UID = (0x0002, 0x0010)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_PIECE = 16 * 1024**2
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
"""Float, double float, and integer pixel data."""
_MOST_STRETCH = 10.0
_SQUARE = 0.01
_MARGIN_BYTES = 4 * 1024**2

# pydicom keeps some objects for each element that it reads, were it of one byte: a picture has no need of so many.
_MAX_READS = 400_000
_BYTES_PER_READ = 128
_BYTES_KEPT = 400
"""For a read: measured with sequences of empty elements, two reads for each."""
_RESERVED_STEP = 1024**2

_COLOURS_UNREAD = {"HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420"}

#: All that is read of a header. Nothing that names a patient, a place or a day is among it.
_TAGS = [
    Tag(name)
    for name in (
        *("SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
        *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelAspectRatio"),
        *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
        *("RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "VOILUTSequence"),
        *("WindowCenter", "WindowWidth", "VOILUTFunction"),
        *("RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor"),
        *("BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
        *("GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData"),
        *("SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData"),
        *("SegmentedBluePaletteColorLookupTableData",),
        *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
        *("FloatPixelData", "DoubleFloatPixelData", "PixelData"),
    )
]

dicom_codecs.add_plugin()
warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


class _Stream(io.BytesIO):
    """A file's content for pydicom, which may read it in so many parts only. What it keeps of it is reserved."""

    def __init__(self, data: bytes, reserve: Reserve) -> None:
        super().__init__(data)
        self.refused: Exception | None = None
        """What `reserve` raised: pydicom turns what a read raises into errors of its own."""
        self._reserve = reserve
        self._size = len(data)
        self._owed = 0
        self._reads_left = _MAX_READS + len(data) // _BYTES_PER_READ

    def read(self, size: int | None = -1, /) -> bytes:
        # Only to inflate a file, without a bound, pydicom reads all that is left.
        if size is None or size < 0 or self._reads_left == 0:
            raise ValueError
        self._reads_left -= 1
        left = max(0, self._size - self.tell())
        self._owed += min(size, left) + _BYTES_KEPT
        if self._owed >= _RESERVED_STEP:
            try:
                self._reserve(self._owed)
            except Exception as error:
                self.refused = error
                raise
            self._owed = 0
        return super().read(size)


class DicomContent:
    """A DICOM file of one frame or many; for one thread."""

    format = "DICOM"

    def __init__(self, data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve) -> None:
        """See `open_content`."""
        self._intensity = intensity
        self._max_pixels = max_pixels
        self._dataset = _parse(data, reserve)
        try:
            self._read_header()
        except ImageFailure:
            raise
        except Exception as error:  # values are parsed when they are asked for
            raise _damaged_header(error) from None
        self._whole: Scale | None = None

    def _read_header(self) -> None:
        _check_picture(self._dataset)
        self._syntax = _syntax(self._dataset)
        self._frames = _positive(self._dataset, "NumberOfFrames", 1)
        self._height, self._width = _positive(self._dataset, "Rows"), _positive(self._dataset, "Columns")
        if self._width * self._height > self._max_pixels:
            raise too_many_pixels(self._max_pixels)
        self._samples = _positive(self._dataset, "SamplesPerPixel", 1)
        self._bits = _positive(self._dataset, "BitsAllocated")
        if self._samples not in (1, 3, 4) or self._bits > 64:
            raise ImageFailure(FailureKind.NOT_AN_IMAGE, "The DICOM header describes no picture.")
        self._stored = _positive(self._dataset, "BitsStored", self._bits)
        self._high = _positive(self._dataset, "HighBit", self._stored - 1) if self._stored > 1 else 0
        self._colours = str(self._dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip()
        if self._colours in _COLOURS_UNREAD:
            raise ImageFailure(
                FailureKind.UNSUPPORTED, f"The colours are {self._colours}, which Scanomaly does not read."
            )
        self._decoder = _decoder(self._syntax)
        _index_frames(self._dataset, self._syntax, self._frames)

    def picture(self, frame: str | None, announce: Announce) -> Image.Image:
        """As `Content.picture` has it."""
        index = self._index(frame)
        pixels = self._width * self._height
        try:
            size = self._square_size(index)
        except Exception as error:
            raise _damaged_header(error) from None
        # What is decoded, twice as a decoder hands it over; float64 of it in the modality's units, twice; RGB, and
        # the picture with square pixels.
        decoded = pixels * self._samples * max(1, self._bits // 8)
        need = 2 * decoded + 16 * pixels * self._samples + 4 * pixels + 8 * math.prod(size) + _MARGIN_BYTES
        if self._intensity.kind == "percentile":
            need += min(SCALE_BYTES, 16 * pixels * self._frames)
        announce(size, need)
        try:
            found = self._make(index)
        except (ImageFailure, EmptySlice):
            raise
        except MemoryError as error:
            raise ImageFailure(FailureKind.TOO_LARGE, "The image did not fit into memory.") from error
        except Exception as error:  # the decoders raise nearly anything on bad bytes
            raise _damaged(error) from None
        if self._frames > 1 and is_empty(found):
            raise EmptySlice(EMPTY_RULE)
        image = Image.fromarray(found).convert("RGB")
        return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)

    def _index(self, frame: str | None) -> int:
        if frame is None:
            return 0
        kind, _, number = frame.partition("/")
        if kind != "frame" or not number.isdecimal() or int(number) >= self._frames:
            raise ImageFailure(FailureKind.MISSING, "The file does not have this frame.")
        return int(number)

    def _make(self, index: int) -> NDArray[np.uint8]:
        """The picture of a frame: (height, width) or (height, width, 3)."""
        values = self._decoded(index)
        if self._colours == "PALETTE COLOR":
            return look_up_colours(values, self._dataset)
        if values.ndim == 3:
            return _to_8_bits(values[..., :3], self._stored)
        grey = by_table(values, partial(self._grey, index))
        # PresentationLUTShape says the same again (INVERSE shall be with MONOCHROME1): it turns nothing back.
        return 255 - grey if self._colours == "MONOCHROME1" else grey

    def _decoded(self, index: int) -> NDArray[Any]:
        options: dict[str, Any] = {}
        if self._syntax.is_encapsulated and "PixelData" in self._dataset:
            options["decoding_plugin"] = dicom_codecs.NAME
            self._check_codestream(_frame(self._dataset, index, self._frames))
        if self._high != self._stored - 1:
            options["correct_unused_bits"] = False
        values: NDArray[Any] = self._decoder.as_array(self._dataset, index=index, **options)[0]
        if values.shape[:2] != (self._height, self._width):
            raise _damaged(ValueError())
        return self._of_high_bits(values)

    def _of_high_bits(self, values: NDArray[Any]) -> NDArray[Any]:
        """Stored values where they are not in the lowest bits, as old files have it."""
        tells_itself = self._syntax in (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes)
        if values.dtype.kind == "f" or self._high == self._stored - 1 or tells_itself:
            return values
        if not self._stored - 1 <= self._high < self._bits:
            raise _damaged(ValueError())
        return (values << (self._bits - 1 - self._high)) >> (self._bits - self._stored)

    def _check_codestream(self, frame: bytes) -> None:
        """A decoder allocates what the compressed data says, and not what the header says."""
        found = None if self._syntax == RLELossless else read_codestream(frame)
        if found is None:
            return
        if found.bits > self._bits or found.samples != self._samples:
            raise _damaged(ValueError())
        if found.size != (self._width, self._height):
            raise ImageFailure(FailureKind.TRUNCATED, "The DICOM header and its compressed picture differ in size.")

    def _grey(self, index: int, values: NDArray[Any]) -> NDArray[np.uint8]:
        units = self._in_units(values, index)
        if self._intensity.kind == "window":
            return Scale.window(self._intensity.low, self._intensity.high)(units)
        if self._intensity.kind == "auto":
            windowed = _by_header(units, self._values_of(index, "FrameVOILUTSequence"))
            if windowed is not None:
                return windowed
        return self._whole_scale()(units)

    def _in_units(self, values: NDArray[Any], index: int) -> NDArray[Any]:
        """Stored values in the modality's units, such as Hounsfield's."""
        header = self._values_of(index, "PixelValueTransformationSequence")
        return apply_modality_lut(values, header) if values.dtype.kind in "iu" else values

    def _whole_scale(self) -> Scale:
        """The scale of all frames: they are decoded once more for it, one at a time."""
        if self._whole is None:
            self._whole = make_scale(self._all_units, self._intensity, Intensity("minmax"))
        return self._whole

    def _all_units(self) -> Iterator[NDArray[Any]]:
        for index in range(self._frames):
            yield self._in_units(self._decoded(index), index)

    def _values_of(self, index: int, group: str) -> Dataset:
        """Where a frame's values of a functional group are: its own, the shared ones, or the file's."""
        for name, number in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
            frames = self._dataset.get(name)
            if frames is not None and number < len(frames) and frames[number].get(group):
                found: Dataset = frames[number].get(group)[0]
                return found
        return self._dataset

    def _square_size(self, index: int) -> tuple[int, int]:
        """The (width, height) of the frame's picture with square pixels: the coarser side is stretched."""
        ratio = _pixel_ratio(self._values_of(index, "PixelMeasuresSequence"), self._dataset)
        size = self._width, self._height
        if abs(ratio - 1) <= _SQUARE or not 1 / _MOST_STRETCH <= ratio <= _MOST_STRETCH:
            return size
        wide = (
            (self._width, round(self._height * ratio)) if ratio > 1 else (round(self._width / ratio), self._height)
        )
        return wide if wide[0] * wide[1] <= self._max_pixels else size


def _parse(data: bytes, reserve: Reserve) -> Dataset:
    is_bare = not is_dicom(data)
    stream = _Stream(_inflated(data, reserve), reserve)
    try:
        return pydicom.dcmread(stream, force=is_bare, specific_tags=_TAGS)
    except MemoryError as error:
        raise ImageFailure(FailureKind.TOO_LARGE, "The file did not fit into memory.") from error
    except Exception as error:
        if stream.refused is not None:
            raise stream.refused from None
        raise _damaged_header(error) from None


def _inflated(data: bytes, reserve: Reserve) -> bytes:
    """A deflated file as a plain one; any other as it is. pydicom would inflate it without a bound."""
    syntax, end = _meta(data)
    if syntax != _DEFLATED:
        return data
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    parts = [data[:end].replace(_DEFLATED, _PLAIN)]
    rest = data[end:]
    while rest and not unpacking.eof:
        reserve(2 * _PIECE)  # the part, and its place in the whole
        try:
            parts.append(unpacking.decompress(rest, _PIECE))
        except zlib.error as error:
            raise _damaged_header(error) from None
        rest = unpacking.unconsumed_tail
    return b"".join(parts)


def _meta(data: bytes) -> tuple[bytes, int]:
    """The transfer syntax that a file names, and where what is written in it begins.

    Group 0002 is explicit little endian in every file. The length that it says is not asked: it may be wrong.
    """
    position, syntax = 132 if is_dicom(data) else 0, b""
    while data[position : position + 2] == b"\2\0" and position + 12 <= len(data):
        element, kind, length = struct.unpack_from("<H2sH", data, position + 2)
        begin = position + 8
        if kind in _LONG_VRS:
            (length,), begin = struct.unpack_from("<L", data, position + 8), position + 12
        if (0x0002, element) == _SYNTAX_UID:
            syntax = data[begin : begin + length].rstrip(b"\0 ")
        position = begin + length
    return syntax, position


def _index_frames(dataset: Dataset, syntax: UID, frames: int) -> None:
    """Tell pydicom where frames are, where the file does not: it would look through all for each of them."""
    if not syntax.is_encapsulated or frames == 1 or "PixelData" not in dataset:
        return
    stream = io.BytesIO(dataset.PixelData)
    if parse_basic_offsets(stream):
        return
    first = stream.tell()
    count, starts = parse_fragments(stream)
    if count == frames:
        lengths = (int.from_bytes(dataset.PixelData[start + 4 : start + 8], "little") for start in starts)
        dataset.ExtendedOffsetTable = struct.pack(f"<{count}Q", *(start - first for start in starts))
        dataset.ExtendedOffsetTableLengths = struct.pack(f"<{count}Q", *lengths)


def _frame(dataset: Dataset, index: int, frames: int) -> bytes:
    """The compressed data of a frame, as pydicom will find it."""
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    return get_frame(dataset.PixelData, index, number_of_frames=frames, extended_offsets=offsets)


def _check_picture(dataset: Dataset) -> None:
    if any(tag in dataset for tag in _PIXELS):
        return
    identifier = UID(str(dataset.get("SOPClassUID", "")))
    # An identifier that is not in the dictionary is its own name, and may be anything.
    known = f" ({identifier.name})" if identifier.name != identifier else ""
    raise ImageFailure(FailureKind.NOT_AN_IMAGE, f"The file is DICOM without a picture{known}.")


def _syntax(dataset: Dataset) -> UID:
    """How the pixels are coded. A file without preamble tells it by how its header is."""
    meta = getattr(dataset, "file_meta", None)
    named = None if meta is None else meta.get("TransferSyntaxUID")
    if named:
        return UID(str(named))
    is_implicit, is_little = dataset.original_encoding
    syntax = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
    if meta is None:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    return syntax


def _decoder(syntax: UID) -> Any:
    try:
        decoder = get_decoder(syntax)
        if decoder.is_available:
            return decoder
    except NotImplementedError:
        pass
    # An identifier that is not in the dictionary is its own name, and may be anything.
    way = f"compressed as {syntax.name}" if syntax.name != syntax else "stored in a way that is not registered"
    raise ImageFailure(FailureKind.UNSUPPORTED, f"The pixels are {way}, which Scanomaly does not read.")


def _positive(dataset: Dataset, name: str, default: int = 0) -> int:
    try:
        value = int(dataset.get(name) or default)
    except (TypeError, ValueError, OverflowError):
        value = 0
    if value <= 0:
        raise ImageFailure(FailureKind.NOT_AN_IMAGE, "The DICOM header describes no picture.")
    return value


def _by_header(units: NDArray[Any], header: Dataset) -> NDArray[np.uint8] | None:
    """Grey by the first window, or else the first lookup table, of a header; None where it has neither."""
    centre, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if centre is not None and width is not None and width > 0:
        kind = str(header.get("VOILUTFunction", "LINEAR")).strip()
        if kind == "SIGMOID":
            with np.errstate(over="ignore"):
                return np.rint(255 / (1 + np.exp(-4 * (units - centre) / width))).astype(np.uint8)
        if kind == "LINEAR_EXACT":
            return Scale(centre - width / 2, centre + width / 2)(units)
        return Scale.window(centre, width)(units)
    if header.get("VOILUTSequence") and np.array_equal(units, np.rint(units)):
        return look_up(units, header.VOILUTSequence[0])
    return None


def _first(value: Any) -> float | None:
    """A number, or the first of several; None where there is none."""
    if value is None:
        return None
    try:
        number = float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None


def _to_8_bits(colours: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Colours of up to 16 bits a channel; palettes give them as they are."""
    if colours.dtype == np.uint8:
        return np.ascontiguousarray(colours)
    shift = max(0, min(bits, 8 * colours.dtype.itemsize) - 8)
    return (colours.astype(np.int64) >> shift).clip(0, 255).astype(np.uint8)


def _pixel_ratio(measures: Dataset, dataset: Dataset) -> float:
    """A pixel's height divided by its width; 1 where the header does not tell."""
    names = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
    values = [measures.get("PixelSpacing"), *(dataset.get(name) for name in names)]
    pair = next((value for value in values if value is not None and value != ""), None)
    try:
        height, width = (float(part) for part in pair)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        return 1.0
    return height / width if 0 < height < math.inf and 0 < width < math.inf else 1.0


def _damaged_header(error: Exception) -> ImageFailure:
    return ImageFailure(
        FailureKind.TRUNCATED,
        f"The file begins as DICOM but its header is cut short or damaged ({type(error).__name__}).",
    )


def _damaged(error: Exception) -> ImageFailure:
    return ImageFailure(
        FailureKind.TRUNCATED, f"The DICOM pixel data is cut short or damaged ({type(error).__name__})."
    )
