"""DICOM's pixels as numbers: plain ones with NumPy, compressed ones with the codecs of imagecodecs.

These leave the interpreter's lock to other threads, and read more than the codecs that pydicom knows by itself.
"""

import re
import struct
import zlib
from itertools import pairwise
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from ....models.sources.dicom import Order
from ....models.states import FailureKind
from ..images import ImageFailure
from .codestreams import Codestream, jpeg_colours, read_codestream
from .dicom_form import Form
from .dicom_frames import cut_short

_GE_BIG_PIXELS = "1.2.840.113619.5.2"
"""GE's implicit little endian, of which only the pixels are big-endian."""
_ENCAPSULATED = "1.2.840.10008.1.2.1.98"
_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"

PLAIN_SYNTAXES = frozenset(
    {
        *(ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian),
        *(_GE_BIG_PIXELS, ""),
    }
)
"""Those whose pixels are not in fragments; the last is that of a file that names none."""

_CODESTREAMS = frozenset(
    {
        *(JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless),
        *(JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K),
    }
)
"""Those whose frames say themselves what they are."""

_UNKNOWN_WAY = re.compile("(?i)unsupported(?! marker)|not supported|not implemented")
"""What codecs say of data that is sound, in a way that they do not know."""

_PADDING = 128
"""A last run may go on for so long, and encoders may pad in their own way: up to as much again is passed over."""
_MOST_SEGMENTS = 15
_PACKED_VALUES = 1 << 16


def check_syntax(syntax: str) -> None:
    """Raises ImageFailure: UNSUPPORTED, compressed pixels of this transfer syntax are not read."""
    known = PLAIN_SYNTAXES | _CODESTREAMS | {RLELossless, _ENCAPSULATED, _DEFLATED_FRAMES}
    if syntax not in known:
        uid = UID(syntax)
        # An identifier that is not in the dictionary is its own name, and may be anything.
        way = f"compressed as {uid.name}" if uid.name != uid else "stored in a way that is not registered"
        raise ImageFailure(FailureKind.UNSUPPORTED, f"The pixels are {way}, which Scanomaly does not read.")


def describe(frame: bytes, syntax: str) -> tuple[Codestream | None, int | None]:
    """What compressed data says of itself, or how many segments of run lengths it has."""
    if syntax == RLELossless:
        count = int.from_bytes(frame[:4], "little")
        return (None, count) if 0 < count <= _MOST_SEGMENTS else (read_codestream(frame), None)
    return (None if syntax in (_ENCAPSULATED, _DEFLATED_FRAMES) else read_codestream(frame)), None


def pixel_order(syntax: str, order: Order) -> Order:
    """The order of bytes in plain pixels."""
    return "big" if syntax == _GE_BIG_PIXELS else order


def decode(frame: bytes, form: Form, syntax: str) -> tuple[NDArray[Any], str]:
    """Decode a compressed frame.

    Args:
        frame: its data.
        form: what the header and the first frame say of it.
        syntax: the file's transfer syntax.

    Returns:
        Its values, (height, width) or (height, width, 3), of which only the bits that count are kept, and its
        colours: those of the header, or RGB where the decoder made them so.

    Raises:
        ImageFailure: TRUNCATED, it is damaged, or not of this form; UNSUPPORTED, no decoder reads it.
        MemoryError: there is not enough.
    """
    codestream, segments = describe(frame, syntax)
    if segments is not None:
        return only_stored(_run_lengths(frame, form), form), form.colours
    if syntax == _ENCAPSULATED:
        return plain_values(frame, 0, form), form.colours
    if syntax == _DEFLATED_FRAMES:
        return plain_values(_inflated(frame, (form.frame_bits + 7) // 8), 0, form), form.colours
    if codestream is None:
        if syntax in PLAIN_SYNTAXES:
            detail = "The pixels are compressed in a way that the file does not name."
            raise ImageFailure(FailureKind.UNSUPPORTED, detail)
        raise _damaged("it is no codestream")
    _check(codestream, form)
    try:
        values, colours = _decoded(codestream, frame, form)
    except MemoryError:
        raise
    except Exception as error:  # each codec has its own, and they come of damage as of what it does not know
        if _UNKNOWN_WAY.search(str(error)):
            detail = f"The pixels are a kind of {codestream.kind} that Scanomaly does not read."
            raise ImageFailure(FailureKind.UNSUPPORTED, detail) from None
        raise _damaged(type(error).__name__) from None
    if values.shape != (form.height, form.width, *((form.samples,) if form.samples > 1 else ())):
        raise _damaged("its size is another")
    return _only_coded(values, codestream, form), colours


def _check(codestream: Codestream, form: Form) -> None:
    """A decoder allocates what the compressed data says, and not what the header says."""
    if codestream.unread:
        raise ImageFailure(
            FailureKind.UNSUPPORTED, f"The pixels are {codestream.unread}, which Scanomaly does not read."
        )
    if codestream.bits > form.allocated or codestream.samples != form.samples:
        raise _damaged("it differs from the first frame")
    if codestream.size != (form.width, form.height):
        raise ImageFailure(FailureKind.TRUNCATED, "The DICOM header and its compressed picture differ in size.")


def _decoded(codestream: Codestream, frame: bytes, form: Form) -> tuple[NDArray[Any], str]:
    """(height, width) or (height, width, samples), and the colours that these are in."""
    if codestream.kind == "JPEG 2000":
        values = imagecodecs.jpeg2k_decode(frame, verbose=0)
        return values, "RGB" if form.colours in ("YBR_ICT", "YBR_RCT", "") else form.colours
    if codestream.kind == "JPEG-LS":
        return imagecodecs.jpegls_decode(frame), jpeg_colours(frame) or form.colours or "RGB"
    if codestream.samples != 3:
        return imagecodecs.jpeg8_decode(frame), form.colours
    # Adobe's marker says how colours are coded, and the header may say something else. Without it and JFIF's the
    # header is right: colours that are called RGB stay as they are.
    said = jpeg_colours(frame)
    if said == "Adobe" or (said is None and not form.colours):
        return imagecodecs.jpeg8_decode(frame, outcolorspace="RGB"), "RGB"
    values = imagecodecs.jpeg8_decode(frame, colorspace="RGB", outcolorspace="RGB")
    keeps = said is None or (said == "YBR_FULL" and form.colours.startswith("YBR"))
    return values, form.colours if keeps else said or ""


def plain_values(
    data: bytes | memoryview, index: int, form: Form, order: Order = "little", is_word: bool = False
) -> Any:
    """The values of a plain frame.

    Args:
        data: the pixels of all frames.
        index: of the frame.
        form: how they are stored.
        order: of the bytes of a number.
        is_word: whether samples of up to 8 bits lie in words (VR OW), which `order` turns round too.

    Returns:
        (height, width) or (height, width, 3), of which only the bits that count are kept.

    Raises:
        ImageFailure: TRUNCATED, the frame is not there.
    """
    first = index * form.frame_bits
    start, end = first // 8, (first + form.frame_bits + 7) // 8
    if end > len(data):
        raise cut_short()
    if order == "big" and is_word and form.allocated <= 8:
        words = np.frombuffer(
            bytes(data[start & ~1 : end + 1 & ~1]).ljust((end + 1 & ~1) - (start & ~1), b"\0"), "u2"
        )
        data, first = words.byteswap().tobytes(), first - 8 * (start & ~1)
    size = form.number_bytes
    if form.allocated == 8 * size:
        kind = np.dtype(f"{'>' if order == 'big' else '<'}u{size}")
        values = np.frombuffer(data, kind, form.frame_bits // form.allocated, first // 8)
        if order == "big":
            values = values.astype(kind.newbyteorder("="))
    else:
        values = _unpacked(data, first, form.frame_bits // form.allocated, form.allocated, size)
    return only_stored(_shaped(values, form), form)


def plain_floats(data: bytes | memoryview, index: int, form: Form, order: Order) -> NDArray[np.floating]:
    """The values of a frame of FloatPixelData or DoubleFloatPixelData. Raises as `plain_values` does."""
    count = form.height * form.width * form.samples
    if (index + 1) * count * form.number_bytes > len(data):
        raise cut_short()
    kind = np.dtype(f"{'>' if order == 'big' else '<'}f{form.number_bytes}")
    values = np.frombuffer(data, kind, count, index * count * form.number_bytes)
    return _shaped(values.astype(kind.newbyteorder("=")), form)


def only_stored(values: NDArray[Any], form: Form) -> NDArray[Any]:
    """Values without the bits that do not count, where the header says that they are, and with their sign."""
    return _kept(values, form.stored, form.high, form.is_signed)


def _only_coded(values: NDArray[Any], codestream: Codestream, form: Form) -> NDArray[Any]:
    """As `only_stored`, of decoded values, which have the bits that the codestream says."""
    bits, high = min(form.stored, codestream.bits), form.high
    if high >= codestream.bits or codestream.bits <= form.stored:
        high = bits - 1  # a codestream of as many bits as count has them as the lowest
    if codestream.kind == "JPEG 2000" and codestream.is_signed == form.is_signed:
        # OpenJPEG gives values as they are, with the sign.
        return values if high == bits - 1 else _kept(values, bits, high, form.is_signed)
    return _kept(values, bits, high, form.is_signed)


def _kept(values: NDArray[Any], bits: int, high: int, is_signed: bool) -> NDArray[Any]:
    width = 8 * values.dtype.itemsize
    unsigned = values.view(f"u{values.dtype.itemsize}")
    if high < width - 1:
        unsigned = unsigned << unsigned.dtype.type(width - 1 - high)
    found: NDArray[Any] = unsigned.view(f"i{values.dtype.itemsize}") if is_signed else unsigned
    return found if bits == width else found >> found.dtype.type(width - bits)


def _shaped(values: NDArray[Any], form: Form) -> NDArray[Any]:
    if (
        form.colours == "YBR_FULL_422"
    ):  # PS3.3, C.7.6.3.1.2: two luminances, and the two differences that they share
        pairs = values[: values.size // 4 * 4].reshape(-1, 4)
        values = pairs[:, [0, 2, 3, 1, 2, 3]].reshape(-1)
        values = np.concatenate([values, np.zeros(3 * form.height * form.width - values.size, values.dtype)])
    if form.samples == 1:
        return values.reshape(form.height, form.width)
    if form.is_by_plane and form.colours != "YBR_FULL_422":
        return values.reshape(form.samples, form.height, form.width).transpose(1, 2, 0)
    return values.reshape(form.height, form.width, form.samples)


def _unpacked(
    data: bytes | memoryview, first: int, count: int, bits: int, size: int
) -> NDArray[np.unsignedinteger]:
    """Numbers of so many bits that follow each other, the lowest bit first: PS3.5, 8.1.1 and annex D."""
    values = np.empty(count, f"<u{size}")
    for start in range(0, count, _PACKED_VALUES):
        number = min(_PACKED_VALUES, count - start)
        begin = first + start * bits
        packed = np.frombuffer(data[begin // 8 : (begin + number * bits + 7) // 8], np.uint8)
        single = np.unpackbits(packed, bitorder="little")[begin % 8 :][: number * bits]
        wide = np.zeros((number, 8 * size), np.uint8)
        wide[:, :bits] = single.reshape(number, bits)
        values[start : start + number] = np.packbits(wide, axis=1, bitorder="little").view(values.dtype)[:, 0]
    return values


def _run_lengths(data: bytes, form: Form) -> NDArray[Any]:
    """Values of run lengths, by PS3.5, annex G: for each byte of a sample, a segment as PackBits has it.

    imagecodecs' own `dicomrle_decode` refuses a last run that goes on beyond the plane, which some files have.
    """
    size, pixels = form.number_bytes, form.height * form.width
    count, *starts = struct.unpack_from("<16L", data.ljust(64, b"\0"))
    if count != form.samples * size or count > _MOST_SEGMENTS:
        raise _damaged("its run lengths are not those of the first frame")
    planes = np.zeros((form.samples, pixels), f"<u{size}")
    for number, (start, end) in enumerate(pairwise([*starts[:count], len(data)])):
        plane = planes[number // size]
        plane <<= planes.dtype.type(8 if number % size else 0)  # the most significant byte comes first
        try:
            segment = imagecodecs.packbits_decode(data[start:end], out=2 * pixels + _PADDING)
        except imagecodecs.PackbitsError:
            raise _damaged("PackbitsError") from None
        if form.allocated == 1 and len(segment) < pixels:
            # Eight pixels in a byte, as uncompressed: PS3.5, 8.2.2 and G.2.
            packed = np.frombuffer(segment, np.uint8)
            segment = np.unpackbits(packed, count=min(pixels, 8 * packed.size), bitorder="little").tobytes()
        if len(segment) < pixels:
            raise cut_short()
        plane |= np.frombuffer(segment, np.uint8, pixels)
    shaped = planes.reshape(form.samples, form.height, form.width)
    return shaped[0] if form.samples == 1 else shaped.transpose(1, 2, 0)


def _inflated(frame: bytes, size: int) -> bytes:
    for bits in (-zlib.MAX_WBITS, zlib.MAX_WBITS):  # bare, as PS3.5, annex A.4.13 has it; some have zlib's header
        unpacking = zlib.decompressobj(bits)
        try:
            return unpacking.decompress(frame, size)
        except zlib.error:
            continue
    raise _damaged("it is not deflated")


def _damaged(why: str) -> ImageFailure:
    return ImageFailure(FailureKind.TRUNCATED, f"The DICOM pixel data is damaged ({why}).")
