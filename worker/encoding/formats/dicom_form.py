"""How the pixels of a DICOM file are stored, by the header's group 0028 and by the pixels themselves.

Headers leave out what they must say, and contradict their pixels. What is missing or cannot be has an obvious
default (PS3.3, C.7.6.3), and what compressed data says of itself is right.
"""

import re
from typing import NamedTuple

from ....models.states import FailureKind
from ..images import ImageFailure
from .codestreams import Codestream
from .dicom_header import Header

_SAMPLES = {
    **dict.fromkeys(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), 1),
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"), 3),
    **dict.fromkeys(("HSV", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB"), 3),
    **dict.fromkeys(("ARGB", "CMYK"), 4),
}
"""What is registered, with the samples of a pixel."""
_UNREAD = {"HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB"}
_BY_LETTERS = {re.sub("[ _]", "", name): name for name in _SAMPLES} | {"MONOCHROME": "MONOCHROME2"}
_SIZES = (8, 16, 32, 64)
_FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
_MOST_SIDE = 1 << 16


class Form(NamedTuple):
    """How the pixels of a file are stored."""

    height: int
    width: int
    samples: int
    """1 or 3."""
    allocated: int
    """The bits of a plain sample; of a compressed one 1, or those of the numbers that it is decoded into."""
    stored: int
    """The bits that count, up to `high`."""
    high: int
    is_signed: bool
    colours: str
    """As PhotometricInterpretation has them; empty where only compressed data can tell."""
    is_by_plane: bool

    @property
    def frame_bits(self) -> int:
        """Of a plain frame."""
        samples = 2 if self.colours == "YBR_FULL_422" else self.samples
        return self.height * self.width * samples * self.allocated

    @property
    def number_bytes(self) -> int:
        """Of the numbers that samples are decoded into."""
        return next(size for size in _SIZES if size >= self.allocated) // 8


class Stored(NamedTuple):
    """What is known of the pixels beside the header."""

    name: str
    """Of their element."""
    frames: int
    plain_bytes: int | None
    """How many bytes all frames take; None of compressed ones."""
    codestream: Codestream | None = None
    """What the first frame says of itself."""
    segments: int | None = None
    """How many run lengths the first frame has, where it has such."""


def read_form(header: Header, stored: Stored) -> Form:
    """Find out how pixels are stored.

    Raises:
        ImageFailure: NOT_AN_IMAGE, a width or height is missing; UNSUPPORTED, the colours are not read.
    """
    found = stored.codestream
    height = header.whole("Rows") or (found.size[1] if found else 0)
    width = header.whole("Columns") or (found.size[0] if found else 0)
    if not (0 < height < _MOST_SIDE and 0 < width < _MOST_SIDE):
        raise ImageFailure(FailureKind.NOT_AN_IMAGE, "The DICOM header describes no picture.")
    colours = _BY_LETTERS.get(re.sub(r"[^A-Z0-9]", "", header.text("PhotometricInterpretation").upper()), "")
    if colours in _UNREAD:
        raise unread_colours(colours)
    per_sample = height * width * stored.frames
    declared = header.whole("BitsAllocated")
    samples = _samples(header.whole("SamplesPerPixel"), colours, stored, per_sample * (declared or 8))
    if samples not in (1, 3):
        raise ImageFailure(
            FailureKind.UNSUPPORTED, f"A pixel has {samples} samples, which Scanomaly does not read."
        )
    if _SAMPLES.get(colours, samples) != samples or not colours:
        is_plain = not stored.codestream or stored.segments is not None
        colours = "MONOCHROME2" if samples == 1 else "RGB" if is_plain else ""
    if colours == "YBR_FULL_422" and (stored.plain_bytes is None or stored.plain_bytes >= 3 * per_sample):
        colours = "YBR_FULL"  # as it is in compressed data once that is decoded; or it was never halved
    allocated = _allocated(declared, header.whole("BitsStored"), stored, per_sample, samples)
    bits = min(header.whole("BitsStored") or (found.bits if found else allocated), allocated)
    high = header.whole("HighBit")
    return Form(
        height,
        width,
        samples,
        allocated,
        bits,
        high if high is not None and bits - 1 <= high < allocated else bits - 1,
        header.whole("PixelRepresentation") == 1 and allocated > 1,
        colours,
        header.whole("PlanarConfiguration") == 1,
    )


def unread_colours(colours: str) -> ImageFailure:
    """What is said of colours, by their registered name, that are not read."""
    return ImageFailure(FailureKind.UNSUPPORTED, f"The colours are {colours}, which Scanomaly does not read.")


def _samples(declared: int | None, colours: str, stored: Stored, bits_of_one: int) -> int:
    """The samples of a pixel. Where the header contradicts itself, the amount of data tells."""
    if stored.codestream is not None:
        return stored.codestream.samples
    by_colours = _SAMPLES.get(colours)
    if declared in (1, 3, 4) and by_colours in (declared, None):
        return declared
    if by_colours is not None and declared not in (1, 3, 4):
        return by_colours
    if stored.segments is not None:
        return 3 if stored.segments % 3 == 0 else 1
    return 3 if stored.plain_bytes is not None and 8 * stored.plain_bytes >= 3 * bits_of_one else 1


def _allocated(declared: int | None, bits: int | None, stored: Stored, per_sample: int, samples: int) -> int:
    if stored.name in _FLOATS:
        return _FLOATS[stored.name]
    if stored.codestream is not None:
        return next((size for size in _SIZES if size >= stored.codestream.bits), _SIZES[-1])
    if declared == 1 and stored.plain_bytes is None:
        return 1
    if stored.segments is not None:
        return next((size for size in _SIZES if size >= 8 * stored.segments // samples), 8)
    values = per_sample * samples
    if not declared or declared > _SIZES[-1]:
        size = 8 * (stored.plain_bytes or 0) // values
        if size in _SIZES:
            return size
        declared = next((size for size in _SIZES if size >= (bits or 8)), _SIZES[-1])
    rounded = next(size for size in _SIZES if size >= declared)
    is_packed = declared > 1 and 8 * (stored.plain_bytes or 0) < rounded * values
    return declared if is_packed or declared == 1 else rounded
