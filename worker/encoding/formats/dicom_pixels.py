"""A DICOM file's bytes → pictures.

No error and no log line of the libraries is told: they quote values of headers, which may name a patient.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import UID

from ....models.intensity import Intensity
from ....models.sources.dicom import frame_count
from ....models.states import FailureKind
from ..images import ImageFailure, too_many_pixels
from .content import Announce, EmptySlice, Reserve
from .dicom_codecs import (
    PLAIN_SYNTAXES,
    check_syntax,
    decode,
    describe,
    pixel_order,
    plain_floats,
    plain_values,
)
from .dicom_form import Stored, read_form, unread_colours
from .dicom_frames import CompressedFrames, cut_short, is_compressed
from .dicom_header import DicomFile, Element, Header, read_file
from .dicom_tables import look_up, look_up_colours, look_up_grey
from .intensity import EMPTY_RULE, SCALE_BYTES, Scale, by_table, is_empty, make_scale

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_MOST_STRETCH = 10.0
_SQUARE = 0.01
_MARGIN_BYTES = 4 * 1024**2
_BYTES_PER_ITEM = 128

warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


class DicomContent:
    """A DICOM file of one frame or many; for one thread."""

    format = "DICOM"

    def __init__(self, data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve) -> None:
        """See `open_content`."""
        self._intensity = intensity
        self._max_pixels = max_pixels
        self._whole: Scale | None = None
        file = read_file(data, reserve)
        self._header, self._syntax = file.header, file.syntax
        name, element = _pixels(file)
        self._name = name
        self._frames = frame_count(self._header.value("NumberOfFrames")) or 1
        self._groups = self._header.items("PerFrameFunctionalGroupsSequence", self._frames)
        reserve(_BYTES_PER_ITEM * len(self._groups))
        self._order = pixel_order(self._syntax, self._header.order)
        self._is_word = element.vr in (b"OW", b"")
        self._plain: memoryview | None = None
        self._compressed: CompressedFrames | None = None
        stored = Stored(name, self._frames, None)
        if is_compressed(file.data, element, self._syntax in PLAIN_SYNTAXES):
            check_syntax(self._syntax)
            self._compressed = CompressedFrames(file.data, element, self._header, self._frames, reserve)
            try:
                codestream, segments = describe(self._compressed[0], self._syntax)
                stored = stored._replace(codestream=codestream, segments=segments)
            except ImageFailure:
                pass  # it is told when a frame is asked for
        else:
            self._plain = memoryview(file.data)[element.start : element.end]
            stored = stored._replace(plain_bytes=len(self._plain))
        self._form = read_form(self._header, stored)
        if self._form.width * self._form.height > max_pixels:
            raise too_many_pixels(max_pixels)

    def picture(self, frame: str | None, announce: Announce) -> Image.Image:
        """As `Content.picture` has it."""
        index = self._index(frame)
        form = self._form
        pixels = form.width * form.height
        size = self._square_size(index)
        # What is decoded, twice as a decoder hands it over; float64 of it in the modality's units, twice; RGB, and
        # the picture with square pixels.
        decoded = pixels * form.samples * form.number_bytes
        need = 2 * decoded + 16 * pixels * form.samples + 4 * pixels + 8 * math.prod(size) + _MARGIN_BYTES
        if self._intensity.kind == "percentile":
            need += min(SCALE_BYTES, 16 * pixels * self._frames)
        announce(size, need)
        try:
            found = self._make(index)
        except (ImageFailure, EmptySlice):
            raise
        except MemoryError as error:
            raise ImageFailure(FailureKind.TOO_LARGE, "The image did not fit into memory.") from error
        except Exception as error:  # what nobody thought of is no proof that the file is damaged
            detail = f"The DICOM picture could not be made ({type(error).__name__})."
            raise ImageFailure(FailureKind.UNSUPPORTED, detail) from None
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
        values, colours = self._decoded(index)
        if colours == "PALETTE COLOR":
            return look_up_colours(values, self._header)
        if values.ndim == 3:
            return self._in_rgb(values, colours)
        grey = by_table(values, partial(self._grey, index))
        # PresentationLUTShape says the same again (INVERSE shall be with MONOCHROME1): it turns nothing back.
        return 255 - grey if colours == "MONOCHROME1" else grey

    def _decoded(self, index: int) -> tuple[NDArray[Any], str]:
        """The stored values of a frame, and the colours that they are."""
        if self._compressed is not None:
            return decode(self._compressed[index], self._form, self._syntax)
        if self._plain is None:
            raise cut_short()
        if self._name != "PixelData":
            return plain_floats(self._plain, index, self._form, self._order), self._form.colours
        values = plain_values(self._plain, index, self._form, self._order, self._is_word)
        return values, self._form.colours

    def _in_rgb(self, values: NDArray[Any], colours: str) -> NDArray[np.uint8]:
        pixels = _to_8_bits(values, self._form.stored)
        if colours in ("YBR_FULL", "YBR_FULL_422"):
            found: NDArray[np.uint8] = convert_color_space(pixels, "YBR_FULL", "RGB")
            return found
        if colours != "RGB":
            raise unread_colours(f"{colours} in this transfer syntax")
        return pixels

    def _grey(self, index: int, values: NDArray[Any]) -> NDArray[np.uint8]:
        units = self._in_units(values, index)
        if self._intensity.kind == "window":
            return Scale.window(self._intensity.low, self._intensity.high)(units)
        if self._intensity.kind == "auto":
            for header in self._headers(index, "FrameVOILUTSequence"):
                windowed = _by_header(units, header)
                if windowed is not None:
                    return windowed
        return self._whole_scale()(units)

    def _in_units(self, values: NDArray[Any], index: int) -> NDArray[Any]:
        """Stored values in the modality's units, such as Hounsfield's; as they are where the header has none."""
        if values.dtype.kind not in "iu":
            return values
        for header in self._headers(index, "PixelValueTransformationSequence"):
            table = header.first("ModalityLUTSequence")
            found = None if table is None else look_up(values, table)
            if found is not None:
                return found
            slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
            if slope and intercept is not None:
                return values.astype(np.float64) * slope + intercept
        return values

    def _whole_scale(self) -> Scale:
        """The scale of all frames: they are decoded once more for it, one at a time."""
        if self._whole is None:
            self._whole = make_scale(partial(self._all_units, True), self._intensity, Intensity("minmax"))
        return self._whole

    def _all_units(self, without_padding: bool) -> Iterator[NDArray[Any]]:
        """The values that count for the scale: of the frames that can be read, all but padding."""
        found = False
        for index in range(self._frames):
            try:
                values, _ = self._decoded(index)
            except ImageFailure:
                continue
            units = self._in_units(values, index)
            if without_padding:
                units = units[~self._is_padding(values)]
            found = found or units.size > 0
            yield units
        if without_padding and not found:  # nothing but padding: then it is a picture of that
            yield from self._all_units(False)

    def _is_padding(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Which stored values fill up the picture: PS3.3, C.7.5.1.1.2."""
        prefix = self._name.removesuffix("PixelData")
        value = self._header.number(f"{prefix}PixelPaddingValue")
        if value is None:
            return np.zeros(values.shape, np.bool_)
        limit = self._header.number(f"{prefix}PixelPaddingRangeLimit")
        ends = [value, value if limit is None else limit]
        if values.dtype.kind in "iu":
            ends = [_as_stored(int(end), self._form.stored, self._form.is_signed) for end in ends]
        elif values.dtype == np.float32:
            ends = [float(np.float32(end)) for end in ends]
        return (values >= min(ends)) & (values <= max(ends))

    def _headers(self, index: int, group: str) -> Iterator[Header]:
        """Where a frame's values of a functional group may be: its own, the shared ones, the file's."""
        own = self._header.item(*self._groups[index]) if index < len(self._groups) else None
        for item in (own, self._header.first("SharedFunctionalGroupsSequence")):
            found = None if item is None else item.first(group)
            if found is not None:
                yield found
        yield self._header

    def _square_size(self, index: int) -> tuple[int, int]:
        """The (width, height) of the frame's picture with square pixels: the coarser side is stretched."""
        width, height = self._form.width, self._form.height
        ratio = self._pixel_ratio(index)
        if abs(ratio - 1) <= _SQUARE or not 1 / _MOST_STRETCH <= ratio <= _MOST_STRETCH:
            return width, height
        wide = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
        return wide if wide[0] * wide[1] <= self._max_pixels else (width, height)

    def _pixel_ratio(self, index: int) -> float:
        """A pixel's height divided by its width; 1 where the header does not tell."""
        names = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
        for header in self._headers(index, "PixelMeasuresSequence"):
            for name in names:
                numbers = header.numbers(name)
                if numbers:
                    is_pair = len(numbers) == 2 and all(number > 0 for number in numbers)
                    return numbers[0] / numbers[1] if is_pair else 1.0
        return 1.0


def _pixels(file: DicomFile) -> tuple[str, Element]:
    """The element that the pixels are in, with its name."""
    for name in _PIXELS:
        element = file.header.element(name)
        if element is not None:
            return name, element
    identifier = UID(file.header.text("SOPClassUID"))
    # An identifier that is not in the dictionary is its own name, and may be anything.
    known = f" ({identifier.name})" if identifier.name != identifier else ""
    if file.header.is_cut and (not known or " Image " in known):
        raise ImageFailure(FailureKind.TRUNCATED, "The DICOM file ends before its pixels.")
    raise ImageFailure(FailureKind.NOT_AN_IMAGE, f"The file is DICOM without a picture{known}.")


def _by_header(units: NDArray[Any], header: Header) -> NDArray[np.uint8] | None:
    """Grey by the first window, or else the first lookup table, of a header; None where it has neither."""
    for centre, width in zip(header.numbers("WindowCenter"), header.numbers("WindowWidth"), strict=False):
        if math.isfinite(centre) and width > 0:
            return _windowed(units, centre, width, header.text("VOILUTFunction").upper())
    table = header.first("VOILUTSequence")
    if table is None or not np.array_equal(units, np.rint(units)):
        return None
    return look_up_grey(units, table)


def _windowed(units: NDArray[Any], centre: float, width: float, kind: str) -> NDArray[np.uint8]:
    if kind == "SIGMOID":
        with np.errstate(over="ignore"):
            curve: NDArray[np.uint8] = np.rint(255 / (1 + np.exp(-4 * (units - centre) / width))).astype(np.uint8)
            return curve
    if kind == "LINEAR_EXACT":
        return Scale(centre - width / 2, centre + width / 2)(units)
    return Scale.window(centre, width)(units)


def _as_stored(value: int, bits: int, is_signed: bool) -> int:
    """A number that may have been read with the wrong sign, or has more bits than count, as pixels have it."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if is_signed and value >> (bits - 1) else value


def _to_8_bits(colours: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Colours of up to 64 bits a channel; of those with a sign, the lowest is 0."""
    if colours.dtype.kind == "f":
        scaled: NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(colours), 0, 1) * 255).astype(np.uint8)
        return scaled
    if colours.dtype.kind == "i":
        kind = np.dtype(f"u{colours.dtype.itemsize}")
        colours = (colours.view(kind) + kind.type(1 << (bits - 1))) & kind.type((1 << bits) - 1)
    found: NDArray[np.uint8]
    if bits < 8:
        found = np.rint(colours * (255.0 / ((1 << bits) - 1))).astype(np.uint8)
    else:
        found = np.ascontiguousarray(colours >> colours.dtype.type(bits - 8)).astype(np.uint8)
    return found
