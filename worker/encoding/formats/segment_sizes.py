"""What a compressed strip or tile of a TIFF says of its size, before a decoder allocates by it."""

import re
import struct

from .codestreams import read_codestream

_LERC = re.compile(rb"Lerc2 ([\s\S]{4})")
_PNG_SIZE, _JXL_SIGNATURE = 16, b"\xff\x0a"
_JXL_BOXES = b"\0\0\0\x0cJXL \r\n\x87\n"
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def stated_size(data: bytes) -> tuple[int, int] | None:
    """The (width, height) of JPEG, JPEG-LS, JPEG 2000, PNG, WebP, JPEG XL or LERC; None where none is found.

    Raises:
        ValueError, struct.error: the header is damaged.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">II", data, _PNG_SIZE)
        return width, height
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    codestream = _jpeg_xl_codestream(data)
    if codestream is not None:
        return _jpeg_xl(int.from_bytes(codestream[2:14], "little"))
    lerc = _LERC.match(data)
    if lerc is not None:
        version = int.from_bytes(lerc[1], "little")
        height, width = struct.unpack_from("<ii", data, 10 + (4 if version >= 3 else 0))  # after a checksum
        return width, height
    found = read_codestream(data)
    return None if found is None else found.size


def _webp(data: bytes) -> tuple[int, int] | None:
    """By the first chunk, as the container's specification and RFC 6386 and 9649 have them."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg_xl_codestream(data: bytes) -> bytes | None:
    """The beginning of a codestream, which may be alone or in boxes; by ISO/IEC 18181-2."""
    at = len(_JXL_BOXES)
    if not data.startswith(_JXL_BOXES):
        return data if data.startswith(_JXL_SIGNATURE) else None
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name in (b"jxlc", b"jxlp"):
            return data[at + (8 if name == b"jxlc" else 12) :][:16]
        if length < 8:
            break
        at += length
    return None


def _jpeg_xl(bits: int) -> tuple[int, int]:
    """By SizeHeader of ISO/IEC 18181-1, whose bits come with the lowest first."""

    def take(count: int) -> int:
        nonlocal bits
        taken = bits & ((1 << count) - 1)
        bits >>= count
        return taken

    def length(is_small: bool) -> int:
        return 8 * (1 + take(5)) if is_small else 1 + take((9, 13, 18, 30)[take(2)])

    is_small = bool(take(1))
    height = length(is_small)
    ratio = take(3)
    if ratio:
        across, down = _JXL_RATIOS[ratio - 1]
        return height * across // down, height
    return length(is_small), height
