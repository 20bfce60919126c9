"""Files of pictures with known values, made piece by piece."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 48, 64
_Y, _X = np.mgrid[:HEIGHT, :WIDTH]
SMOOTH = np.stack([_X * 4, _Y * 5, (_X + _Y) * 2], -1).astype(np.uint8)
"""Colours (HEIGHT, WIDTH, 3) that lossy codecs keep."""
GREY = SMOOTH[..., 0]
DEEP = GREY.astype(np.uint16) * 16 + 3
"""Grey of 12 bits."""
MASK = GREY > 100

PNG = b"\x89PNG\r\n\x1a\n"
_STRUCT_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 12: "d"}


def encoded(pixels: np.ndarray | Image.Image, name: str, **options: Any) -> bytes:
    """By Pillow."""
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, name, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    """By tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, **options)
    return buffer.getvalue()


def raw_tiff(pixels: bytes, bits: Sequence[int], tags: dict[int, tuple[int, Sequence[float]]]) -> bytes:
    """One strip and its directory: width, length, bits, the strip, and tags, each with its type and values."""
    basis: dict[int, tuple[int, Sequence[float]]] = {256: (3, [WIDTH]), 257: (3, [HEIGHT]), 258: (3, bits)}
    basis |= {273: (4, [8]), 277: (3, [len(bits)]), 279: (4, [len(pixels)])} | tags
    body = pixels + b"\0" * (len(pixels) % 2)
    start = 8 + len(body)
    far, entries, after = b"", b"", start + 2 + 12 * len(basis) + 4
    for tag, (kind, values) in sorted(basis.items()):
        value = struct.pack(f"<{len(values)}{_STRUCT_TYPES[kind]}", *values)
        if len(value) > 4:
            value, far = struct.pack("<I", after + len(far)), far + value + b"\0" * (len(value) % 2)
        entries += struct.pack("<HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    return struct.pack("<2sHI", b"II", 42, start) + body + struct.pack("<H", len(basis)) + entries + b"\0" * 4 + far


def chunk(name: bytes, body: bytes, checksum: int | None = None) -> bytes:
    """Of a PNG."""
    right = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", right if checksum is None else checksum)


def png(samples: np.ndarray, bits: int, kind: int, before: bytes = b"", first: bytes = b"") -> bytes:
    """A PNG of (HEIGHT, WIDTH, samples), of 8 or 16 bits, without filters; `before` comes before its pixels."""
    rows = samples.astype(">u2" if bits == 16 else np.uint8).reshape(HEIGHT, -1).view(np.uint8).reshape(HEIGHT, -1)
    pixels = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, 0))
    return PNG + first + head + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def segment(marker: int, body: bytes) -> bytes:
    """Of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment as its first."""
    return jpeg[:2] + segment(marker, body) + jpeg[2:]


def as_rgb(grey: np.ndarray) -> np.ndarray:
    """(height, width) → (height, width, 3) of int."""
    return np.repeat(grey.astype(int)[..., None], 3, axis=-1)


def scaled(values: np.ndarray) -> np.ndarray:
    """As docs/formats.md has it: from the smallest value to the largest."""
    exact = values.astype(np.float64)
    grey = np.rint((exact - exact.min()) * 255 / (exact.max() - exact.min())).astype(int)
    return grey if grey.ndim == 3 else as_rgb(grey)
