"""PNG: the chunks that a picture needs, and none of the others.

Text, colour profiles, times and what programs keep for themselves do not change the pixels, so they are not read:
neither their size nor their damage costs the picture.
"""

import struct

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from ....models.states import FailureKind
from ..images import ImageFailure, Source, damage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_AROUND = 12
"""A chunk's length, its name and its checksum."""

_MAX_CHUNKS = 200_000
_BYTES_PER_CHUNK = 64
_GREY_AND_ALPHA = 4
BYTES_PER_DEEP_PIXEL = 16
"""What `grey_of_16_bits` takes: 4 bytes of samples, and what becomes of them."""


class PngSource(Source):
    """The picture of a PNG file: its header, its palette, its pixels and its end."""

    def __init__(self, data: bytes) -> None:
        """Args:
        data: the whole file.

        Raises:
            ImageFailure: UNSUPPORTED, it is one of Apple's own; TRUNCATED, it has more chunks than a picture.
        """
        super().__init__(data)
        self._head, start, end = _picture_part(data)
        self._pixels = memoryview(data)[start:end]
        self._size = len(self._head) + len(self._pixels) + len(_END)
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        self.count_read()
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        parts, start = [], 0
        for part in (self._head, self._pixels, _END):
            parts.append(part[max(0, self._at - start) : max(0, end - start)])
            start += len(part)
        self._at = max(self._at, end)
        return b"".join(parts)


def is_grey_of_16_bits_with_alpha(source: PngSource) -> bool:
    """Whether Pillow would keep the upper 8 bits of the grey alone."""
    source.seek(24)
    header = source.read(2)
    source.seek(0)
    return header == bytes([16, _GREY_AND_ALPHA])


def grey_of_16_bits(source: PngSource) -> NDArray[np.uint16]:
    """The grey of a PNG of grey and alpha.

    Returns:
        (height, width).

    Raises:
        ImageFailure: TRUNCATED or TOO_LARGE.
    """
    source.seek(0)
    try:
        samples: NDArray[np.uint16] = imagecodecs.png_decode(source.read())
    except Exception as error:  # the codecs raise their own, and MemoryError
        raise damage("PNG", error) from error
    return samples[..., 0]


def _picture_part(data: bytes) -> tuple[bytes, int, int]:
    """The signature and the chunks that are needed before the pixels, and where the chunks of the pixels are."""
    head, at = [SIGNATURE], len(SIGNATURE)
    left = _MAX_CHUNKS + len(data) // _BYTES_PER_CHUNK
    start = 0
    while at + 8 <= len(data):
        left -= 1
        if left < 0:
            raise ImageFailure(FailureKind.TRUNCATED, "The PNG has more parts than a picture: it is damaged.")
        length, name = struct.unpack_from(">I4s", data, at)
        after = at + length + _AROUND
        if name == b"CgBI":
            raise ImageFailure(FailureKind.UNSUPPORTED, "The PNG is of Apple's own kind (CgBI), which is not read.")
        if name == b"IDAT":
            start = start or at
        elif start:
            return b"".join(head), start, at
        elif name in (b"IHDR", b"PLTE"):
            head.append(data[at:after])
        at = after
    return b"".join(head), start or len(data), len(data)
