"""Compressed DICOM pixels, as a decoding plugin of pydicom, with the codecs of imagecodecs.

They leave the interpreter's lock to other threads, and read more than the codecs that pydicom knows by itself.
"""

import struct
from itertools import pairwise

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from .codestreams import has_adobe_marker

NAME = "imagecodecs"
"""The plugin's, for pydicom."""

_JPEG = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1}
_JPEG_LS = {JPEGLSLossless, JPEGLSNearLossless}
_JPEG_2000 = {JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K}

_PADDING = 128
"""A last run may go on for so long, and encoders may pad in their own way: up to as much again is passed over."""

_SYNTAXES = frozenset({RLELossless} | _JPEG | _JPEG_LS | _JPEG_2000)

DECODER_DEPENDENCIES = dict.fromkeys(_SYNTAXES, ("imagecodecs",))


def is_available(uid: str) -> bool:
    """Part of what pydicom asks of a plugin."""
    return uid in _SYNTAXES


def add_plugin() -> None:
    """Make the plugin known to pydicom. Once, and from one thread."""
    for syntax in _SYNTAXES:
        get_decoder(syntax).add_plugin(NAME, (__name__, decode_frame.__name__))


def decode_frame(data: bytes, runner: DecodeRunner) -> bytes:
    """Decode a frame.

    Args:
        data: its codestream. What it says of its picture has been compared with the header: it is allocated.
        runner: says what the header does; is told where the result differs from it.

    Returns:
        The stored values, little endian, in the colours that the header says, or the runner is told.

    Raises:
        Exception: nearly any, on damaged data.
    """
    if runner.transfer_syntax == RLELossless:
        runner.set_option("planar_configuration", 1)
        return _planes(data, runner).tobytes()
    values, are_rgb = _decode(data, runner)
    runner.set_option("bits_allocated", 8 * values.itemsize)
    runner.set_option("planar_configuration", 0)
    if are_rgb:
        runner.set_option("photometric_interpretation", "RGB")
    return values.tobytes()


def _decode(data: bytes, runner: DecodeRunner) -> tuple[NDArray[np.integer], bool]:
    """(height, width) or (height, width, samples), and whether these are now RGB, whatever they were."""
    if runner.transfer_syntax in _JPEG_2000:
        colours = runner.photometric_interpretation
        return imagecodecs.jpeg2k_decode(data, verbose=0), colours in ("YBR_ICT", "YBR_RCT")
    if runner.transfer_syntax in _JPEG_LS:
        return imagecodecs.jpegls_decode(data), False
    if runner.samples_per_pixel != 3:
        return imagecodecs.jpeg8_decode(data), False
    # Adobe's marker says how colours are coded, and the header may say something else. Without it only the header
    # is right: colours that are called RGB stay as they are.
    is_marked = has_adobe_marker(data)
    coded = None if is_marked else "RGB"
    return imagecodecs.jpeg8_decode(data, colorspace=coded, outcolorspace="RGB"), is_marked


def _planes(data: bytes, runner: DecodeRunner) -> NDArray[np.unsignedinteger]:
    """(samples, pixels) of run lengths, by PS3.5, annex G: for each byte of a sample, a segment as PackBits has it.

    imagecodecs' own `dicomrle_decode` refuses a last run that goes on beyond the plane, which some files have.
    """
    size, pixels = runner.bits_allocated // 8, runner.rows * runner.columns
    count, *starts = struct.unpack_from("<16L", data)
    if count != runner.samples_per_pixel * size:
        raise ValueError
    planes = np.zeros((runner.samples_per_pixel, pixels), f"<u{size}")
    for number, (start, end) in enumerate(pairwise([*starts[:count], len(data)])):
        plane = planes[number // size]
        plane <<= planes.dtype.type(8 if number % size else 0)  # the most significant byte comes first
        segment = imagecodecs.packbits_decode(data[start:end], out=2 * pixels + _PADDING)
        plane |= np.frombuffer(segment, np.uint8, pixels)
    return planes
