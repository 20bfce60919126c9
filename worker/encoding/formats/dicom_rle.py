"""DICOM's run lengths, as a decoding plugin of pydicom: its own one makes a segment as long as it says, in Python.

By PS3.5, annex G: a segment is PackBits, which Pillow decodes.
"""

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import RLELossless

NAME = "pillow packbits"
"""The plugin's, for pydicom."""

DECODER_DEPENDENCIES = {RLELossless: ("pillow",)}


def is_available(uid: str) -> bool:
    """Part of what pydicom asks of a plugin."""
    return uid in DECODER_DEPENDENCIES


def add_plugin() -> None:
    """Make the plugin known to pydicom. Once, and from one thread."""
    get_decoder(RLELossless).add_plugin(NAME, (__name__, decode_frame.__name__))


def decode_frame(data: bytes, runner: DecodeRunner) -> bytes:
    """Decode a frame.

    Args:
        data: its run lengths.
        runner: says how many rows, columns and samples it has, and of how many bits; is told how they are ordered.

    Returns:
        One plane for each sample, little endian. What a segment holds beyond its plane is padding.

    Raises:
        ValueError, struct.error: it is cut short, or of other numbers than that.
    """
    size, pixels = runner.bits_allocated // 8, runner.rows * runner.columns
    segments = _segments(data)
    if runner.bits_allocated % 8 or len(segments) != runner.samples_per_pixel * size:
        raise ValueError
    planes = np.zeros((runner.samples_per_pixel, pixels), f"<u{size}")
    for number, segment in enumerate(segments):
        plane = planes[number // size]  # its most significant bytes come first
        plane <<= planes.dtype.type(8 if number % size else 0)
        plane |= _unpacked(segment, pixels)
    runner.set_option("planar_configuration", 1)
    return planes.tobytes()


def _segments(data: bytes) -> list[bytes]:
    count, *starts = struct.unpack_from("<16L", data)
    ends = [*starts[1:count], len(data)]
    return [data[start:end] for start, end in zip(starts[:count], ends, strict=True)]


def _unpacked(segment: bytes, pixels: int) -> NDArray[np.uint8]:
    """(pixels,). As one row: Pillow has rows begin with a run of their own."""
    row = Image.frombytes("L", (pixels, 1), segment, "packbits", "L")
    return np.frombuffer(row.tobytes(), np.uint8).view(np.uint8)
