"""JPEG files that Pillow does not read: of more than 8 bits, JPEG-LS, and those with damaged metadata."""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from ..images import damage

SIGNATURE = b"\xff\xd8\xff"
BYTES_PER_DEEP_PIXEL = 40
"""What `decode_deep` and the picture made of it take: of three samples 2 bytes each, twice in libjpeg, and RGB."""

_HIERARCHICAL = {0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF}
_JPEG_LS, _ARITHMETIC_LOSSLESS, _SCAN = 0xF7, 0xCB, 0xDA
_MAX_SEGMENTS = 200_000
_BYTES_PER_SEGMENT = 64
_NO_FRAMES = {0xC4, 0xC8, 0xCC}
_JFIF_BYTES, _ADOBE_BYTES = 16, 14
"""The lengths below which libjpeg ignores these two, which say how colours are coded."""


class Frame(NamedTuple):
    """What a file says of its picture."""

    marker: int
    bits: int
    size: tuple[int, int]
    samples: int

    @property
    def is_for_pillow(self) -> bool:
        return self.bits == 8 and self.marker not in _HIERARCHICAL | {_JPEG_LS, _ARITHMETIC_LOSSLESS}

    @property
    def unread(self) -> str:
        """What of it no decoder reads; empty where there is nothing."""
        if self.marker in _HIERARCHICAL:
            return "hierarchical"
        if self.marker == _ARITHMETIC_LOSSLESS:
            return "lossless with arithmetic coding"
        if self.samples not in (1, 3):
            return f"of {self.bits} bits and {self.samples} samples"
        return ""


def read_frame(data: bytes) -> Frame | None:
    """What a file says of its picture; None where its header is damaged."""
    for marker, start, end in _segments(data):
        if marker == _JPEG_LS or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES):
            if min(end, len(data)) - start < 10:
                return None
            bits, height, width, samples = struct.unpack_from(">BHHB", data, start + 4)
            return Frame(marker, bits, (width, height), samples)
    return None


def without_metadata(data: bytes) -> bytes | None:
    """The same picture without what libjpeg does not look at; None where the header is damaged.

    Memory: a copy of the file.
    """
    kept = [data[:2]]
    for marker, start, end in _segments(data):
        if marker == _SCAN:
            return b"".join([*kept, data[start:]])
        length = end - start - 2
        is_jfif = marker == 0xE0 and length >= _JFIF_BYTES and data[start + 4 : start + 9] == b"JFIF\0"
        is_adobe = marker == 0xEE and length >= _ADOBE_BYTES and data[start + 4 : start + 9] == b"Adobe"
        if is_jfif or is_adobe or (marker != 0xFE and not 0xE0 <= marker <= 0xEF):
            kept.append(data[start:end])
    return None


def decode_deep(data: bytes, frame: Frame) -> NDArray[Any]:
    """Decode a file that Pillow does not read.

    Returns:
        (height, width) of grey or (height, width, 3) of RGB, unsigned, in as many bits as the frame says.

    Raises:
        ImageFailure: TRUNCATED, UNSUPPORTED or TOO_LARGE.
    """
    try:
        decode = imagecodecs.jpegls_decode if frame.marker == _JPEG_LS else imagecodecs.jpeg8_decode
        values: NDArray[Any] = decode(data)
    except Exception as error:  # the codecs raise their own, and MemoryError
        raise damage("JPEG", error) from error
    return values


def upper_8_bits(values: NDArray[Any], frame: Frame) -> NDArray[np.uint8]:
    """Of colours of more than 8 bits."""
    return (values >> max(0, frame.bits - 8)).astype(np.uint8)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of the segments up to the first scan."""
    at, left = 2, _MAX_SEGMENTS + len(data) // _BYTES_PER_SEGMENT
    while left and at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        left -= 1
        if marker == 0xFF:
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        yield marker, at, end
        if marker == _SCAN:
            return
        at = end
