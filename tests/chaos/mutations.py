"""Damaged image files of every format that is read, the same ones for the same seed."""

import io
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin

Random = np.random.Generator
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER_BYTES = 256


def mutated_files(folder: Path, count: int, seed: int) -> list[Path]:
    """Write `count` files `NUMBER-SAMPLE.ENDING`: valid images of varied formats, modes and sizes, each damaged.

    A file has one to three kinds of damage. Some are still valid images.
    """
    random = np.random.default_rng(seed)
    names = sorted(samples())
    paths = []
    for number in range(count):
        name = names[int(random.integers(len(names)))]
        data = samples()[name]
        for _ in range(int(random.integers(1, 4))):
            data = _DAMAGES[int(random.integers(len(_DAMAGES)))](data, random)
        path = folder / f"{number:06}-{name}"
        path.write_bytes(data)
        paths.append(path)
    return paths


@cache
def samples() -> dict[str, bytes]:
    """Valid small images, by a name that has a file's ending."""
    frames = {"save_all": True, "append_images": [_picture("RGB", 64, 48, 9), _picture("RGB", 64, 48, 10)]}
    tiffs: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "raw": (_picture("RGB"), {}),
        "lzw": (_picture("RGBA", 90, 31), {"compression": "tiff_lzw"}),
        "deflate": (_picture("CMYK"), {"compression": "tiff_adobe_deflate"}),
        "jpeg": (_picture("RGB"), {"compression": "jpeg"}),
        "packbits": (_picture("L"), {"compression": "packbits"}),
        "fax": (_picture("L").convert("1"), {"compression": "group4"}),
        "palette": (_picture("RGB").quantize(32), {"compression": "tiff_lzw"}),
        "16": (_deep(np.uint16), {}),
        "16-strips": (_deep(np.uint16), {"compression": "tiff_lzw", "strip_size": 256}),
        "32": (_deep(np.int32), {"compression": "tiff_adobe_deflate"}),
        "float": (_deep(np.float32), {}),
        "turned": (_picture("RGB"), {"tiffinfo": {274: 6}}),
        "pages": (_picture("RGB", 64, 48), frames),
        "big": (_picture("RGB"), {"big_tiff": True}),
    }
    others: dict[str, tuple[str, Image.Image, dict[str, object]]] = {
        "baseline.jpg": ("JPEG", _picture("RGB"), {"comment": "a comment", "icc_profile": bytes(300)}),
        "grey.jpg": ("JPEG", _picture("L", 33, 17), {"exif": _exif()}),
        "progressive.jpg": ("JPEG", _picture("RGB"), {"progressive": True, "subsampling": 0}),
        "cmyk.jpg": ("JPEG", _picture("CMYK"), {}),
        "pair.jpg": ("MPO", _picture("RGB"), {"save_all": True, "append_images": [_picture("RGB", seed=4)]}),
        "rgb.png": ("PNG", _picture("RGB"), {"icc_profile": bytes(300), "exif": _exif()}),
        "rgba.png": ("PNG", _picture("RGBA"), {}),
        "grey-alpha.png": ("PNG", _picture("LA"), {}),
        "16.png": ("PNG", _deep(np.uint16), {}),
        "palette.png": ("PNG", _picture("RGB").quantize(16), {"transparency": bytes(range(16))}),
        "one-bit.png": ("PNG", _picture("L").convert("1"), {}),
        "animated.png": ("PNG", _picture("RGB", 64, 48), frames | {"disposal": 1}),
        "rgb.bmp": ("BMP", _picture("RGB"), {}),
        "palette.bmp": ("BMP", _picture("RGB").quantize(200), {}),
        "one-bit.bmp": ("BMP", _picture("L").convert("1"), {}),
        "plain.dib": ("DIB", _picture("RGB"), {}),
        "lossy.webp": ("WEBP", _picture("RGB"), {"exif": _exif()}),
        "lossless.webp": ("WEBP", _picture("RGBA"), {"lossless": True}),
        "animated.webp": ("WEBP", _picture("RGB", 64, 48), frames),
        "plain.gif": ("GIF", _picture("L"), {"comment": b"a comment"}),
        "animated.gif": ("GIF", _picture("RGB", 64, 48).quantize(32), frames | {"disposal": 2}),
    }
    found = {name: _encoded(image, form, options) for name, (form, image, options) in others.items()}
    found |= {f"{name}.tif": _encoded(image, "TIFF", options) for name, (image, options) in tiffs.items()}
    pixels = np.asarray(_picture("L", 64, 64)).tobytes()
    return found | {
        "interlaced.png": _interlaced_png(),
        "runs.bmp": _bmp_of_runs(),
        "tiles.tif": _tiled_tiff(pixels),
    }


def _picture(mode: str, width: int = 61, height: int = 43, seed: int = 0) -> Image.Image:
    """Smooth in one half, noise in the other."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, bands), np.uint8)
    pixels[:, : width // 2] = np.linspace(0, 255, height).astype(np.uint8)[:, None, None]
    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., band])) for band in range(bands)]
    return planes[0] if bands == 1 else Image.merge(mode, planes)


def _deep(dtype: type) -> Image.Image:
    return Image.fromarray(np.linspace(100, 4000, 40 * 30).reshape(30, 40).astype(dtype))


def _exif() -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x011A] = 6, TiffImagePlugin.IFDRational(300)
    return tags.tobytes()


def _encoded(image: Image.Image, file_format: str, options: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _interlaced_png() -> bytes:
    """8 × 8 grey in Adam7's seven passes, which Pillow does not write."""
    from zlib import compress, crc32

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc32(kind + body))

    passes = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))
    lines = b"".join((b"\0" + bytes(range(40, 40 + width))) * height for width, height in passes)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compress(lines)) + chunk(b"IEND", b"")


def _bmp_of_runs() -> bytes:
    """16 × 4 in RLE8: runs, an absolute run, a delta, ends of lines."""
    palette = b"".join(bytes((shade, 255 - shade, 7, 0)) for shade in range(256))
    runs = b"\x10\x05\0\0" + b"\x08\x01\0\x04abcd\x04\x02\0\0" + b"\x02\x09\0\x02\x03\x01" + b"\x05\x07\0\0\0\x01"
    info = struct.pack("<IiiHHIIiiII", 40, 16, 4, 1, 8, 1, len(runs), 0, 0, 256, 0)
    offset = 14 + len(info) + len(palette)
    return struct.pack("<2sIHHI", b"BM", offset + len(runs), 0, 0, offset) + info + palette + runs


def _tiled_tiff(pixels: bytes) -> bytes:
    """64 × 64 grey as one deflated tile, which Pillow does not write."""
    from zlib import compress

    tile = compress(pixels)
    tags = [
        *((256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)),
        *((322, 4, 1, 64), (323, 4, 1, 64), (324, 4, 1, 8), (325, 4, 1, len(tile))),
    ]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(tile))
    return head + tile + struct.pack("<H", len(tags)) + directory + b"\0\0\0\0"


def _place(data: bytes, random: Random) -> int:
    """Half of all damage is in the header, where it does most."""
    end = len(data) if random.random() < 0.5 else min(len(data), _HEADER_BYTES)
    return int(random.integers(0, max(1, end)))


def _flip_bits(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 9)) if changed else 0):
        changed[_place(data, random)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _overwrite(data: bytes, random: Random) -> bytes:
    at, new = _place(data, random), random.bytes(int(random.integers(1, 17)))
    return data[:at] + new + data[at + len(new) :]


def _truncate(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def _insert(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + random.bytes(int(random.integers(1, 65))) + data[at:]


def _delete(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + int(random.integers(1, 65)) :]


def _repeat(data: bytes, random: Random) -> bytes:
    """A piece again and again: segments, chunks, tags, runs."""
    at = _place(data, random)
    piece = data[at : at + int(random.integers(1, 257))]
    return data[:at] + piece * int(random.choice([2, 3, 100])) + data[at:]


def _extreme_field(data: bytes, random: Random) -> bytes:
    """An integer of 1, 2 or 4 bytes at an extreme, in either byte order."""
    at, size = _place(data, random), int(random.choice([1, 2, 4]))
    value = _EXTREMES[int(random.integers(len(_EXTREMES)))] & (256**size - 1)
    order = "little" if random.random() < 0.5 else "big"
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


def _splice(data: bytes, random: Random) -> bytes:
    """The start of one file, the end of another, mostly of another format."""
    other = list(samples().values())[int(random.integers(len(samples())))]
    return data[: _place(data, random)] + other[_place(other, random) :]


def _append(data: bytes, random: Random) -> bytes:
    return data + random.bytes(int(random.integers(1, 2000)))


_DAMAGES: list[Callable[[bytes, Random], bytes]] = [
    _flip_bits,
    _overwrite,
    _truncate,
    _insert,
    _delete,
    _repeat,
    _extreme_field,
    _extreme_field,
    _splice,
    _append,
]
