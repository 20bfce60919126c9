"""Every kind of picture is shown as an independent reader has it, or refused by name; and the table of the docs.

Lossless files are written from known values. Where a codec or a colour space changes values, what is right comes
from a reader that is not the one under test: libtiff, or imagecodecs' codecs where Pillow is.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.images import ImageFailure
from tests.pictures import decode

from .making import (
    DEEP,
    GREY,
    HEIGHT,
    MASK,
    SMOOTH,
    WIDTH,
    as_rgb,
    chunk,
    encoded,
    png,
    raw_tiff,
    scaled,
    tiff,
    with_segment,
)
from .test_tiff_grid import cases

LIMIT = 100_000
DOCS = Path(__file__).parents[2] / "docs" / "formats.md"
pytestmark = pytest.mark.filterwarnings("ignore")

COLOUR_MAP = np.random.default_rng(0).integers(0, 65536, (3, 65536), np.uint16)
CMYK = np.dstack([SMOOTH, GREY])
WIDE = SMOOTH.astype(np.uint16) * 257
LAB = np.dstack([GREY // 2 + 80, SMOOTH[..., 1] // 12 - np.uint8(10), SMOOTH[..., 2] // 12 - np.uint8(10)])
FRACTIONS = DEEP.astype(np.float64) / 7


class File(NamedTuple):
    make: Callable[[], bytes]
    right: Callable[[bytes], np.ndarray] | None = None
    """What is shown, (height, width, 3); None where the file is refused."""
    apart: int = 0
    """How far a value may be from it: of a lossy codec, or of another way to round."""
    says: str = ""
    """What the sentence of the refusal names."""


class Row(NamedTuple):
    format: str
    what: str
    result: str
    files: list[File]


def libtiff(data: bytes) -> np.ndarray:
    return np.asarray(imagecodecs.tiff_decode(data, asrgb=True))[..., :3]


def srgb(lab: np.ndarray) -> np.ndarray:
    """CIELab under D50, as TIFF 6.0 stores it (p. 110), by the formulas of CIE 15 and IEC 61966-2-1."""
    lightness, a, b = lab[..., 0] / 2.55, lab[..., 1].view(np.int8), lab[..., 2].view(np.int8)
    middle = (lightness + 16) / 116
    powers = np.stack([middle + a / 500, middle, middle - b / 200], -1)
    xyz = np.where(powers > 6 / 29, powers**3, (powers - 4 / 29) * 108 / 841) * (0.9642, 1, 0.8249)
    to_srgb = ((3.1339, -1.6169, -0.4906), (-0.9788, 1.9161, 0.0335), (0.0719, -0.2290, 1.4052))  # with Bradford
    linear = np.clip(xyz @ np.transpose(to_srgb), 0, 1)
    return np.rint(255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear))


def known(values: np.ndarray) -> Callable[[bytes], np.ndarray]:
    return lambda data: values


def by(codec: Callable[[bytes], np.ndarray]) -> Callable[[bytes], np.ndarray]:
    """As a codec of imagecodecs has it, which Pillow does not use."""

    def right(data: bytes) -> np.ndarray:
        samples = np.asarray(codec(data))
        if samples.ndim == 2 or samples.shape[-1] <= 2:
            return as_rgb(samples if samples.ndim == 2 else samples[..., 0])
        return samples[..., :3]

    return right


def read(make: Callable[[], bytes], values: np.ndarray, apart: int = 0) -> File:
    return File(make, known(values), apart)


def refused(make: Callable[[], bytes], says: str) -> File:
    return File(make, says=says)


def packed(bits: int, colours: str) -> File:
    """Whole numbers of so many bits, without gaps between them."""
    random = np.random.default_rng(bits)
    shape = (HEIGHT, WIDTH, 3) if colours == "rgb" else (HEIGHT, WIDTH)
    values = random.integers(0, 1 << bits, shape).astype(np.uint8 if bits <= 8 else np.uint16)
    if colours == "rgb":
        right = values >> (bits - 8) if bits > 8 else np.rint(values * (255 / ((1 << bits) - 1)))
    else:
        right = scaled(values) if bits > 8 else as_rgb(np.rint(values * (255 / ((1 << bits) - 1))))
    if colours == "miniswhite":
        right = 255 - right
    return read(lambda: tiff(values, photometric=colours, bitspersample=bits), right.astype(int), 1)


def inside(codec: str, lossless: bool = True, **options: object) -> list[File]:
    """A codec in strips and in tiles."""
    files = []
    arguments = {"lossless": True, **options} if codec in ("webp", "jpegxl") else options
    for values, colours, right in (
        (SMOOTH, "rgb", SMOOTH),
        (GREY, "minisblack", as_rgb(GREY)),
        (GREY, "miniswhite", as_rgb(255 - GREY)),
        (DEEP, "minisblack", scaled(DEEP)),
        (DEEP, "miniswhite", 255 - scaled(DEEP)),
        (WIDE, "rgb", WIDE // 256),
    ):
        if (codec == "webp" and colours != "rgb") or (codec == "webp" and values is WIDE):
            continue
        for tiles in ({}, {"tile": (32, 32)}):
            made = {"photometric": colours, "compression": codec, "compressionargs": arguments, **tiles}
            files.append(read(lambda values=values, made=made: tiff(values, **made), right, 1))
    return files


def turned(turn: int, values: np.ndarray, right: np.ndarray) -> File:
    """TIFF 6.0, p. 36: where the first row and the first column are."""
    ways = {
        1: right,
        2: right[:, ::-1],
        3: right[::-1, ::-1],
        4: right[::-1],
        5: right.swapaxes(0, 1),
        6: np.rot90(right, -1),
        7: np.rot90(right, 2).swapaxes(0, 1),
        8: np.rot90(right),
    }
    return read(lambda: tiff(values, photometric="minisblack", extratags=[(274, 3, 1, turn, True)]), ways[turn], 1)


def subsampled() -> bytes:
    """YCbCr 4:2:0 as TIFF 6.0 has it, p. 93: four of Y, one of Cb and Cr."""
    blocks = GREY.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).swapaxes(1, 2).reshape(-1, 4)
    units = np.pad(blocks, ((0, 0), (0, 2)), constant_values=128).tobytes()
    return raw_tiff(units, [8, 8, 8], {262: (3, [6]), 530: (3, [2, 2])})


def arithmetic() -> bytes:
    """A codestream that needs a decoder with arithmetic coding, by its marker alone."""
    jpeg = imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=12)
    return jpeg.replace(b"\xff\xc3", b"\xff\xcb", 1)


def bmp() -> bytes:
    return encoded(SMOOTH, "BMP")


def jpeg() -> bytes:
    return encoded(SMOOTH, "JPEG", quality=95)


def grey_jpeg() -> bytes:
    return encoded(GREY, "JPEG", quality=95)


def deep_jpeg(values: np.ndarray, bits: int, lossless: bool) -> bytes:
    return imagecodecs.jpeg8_encode(values, level=100, bitspersample=bits, lossless=lossless)


def same_jpeg(data: bytes) -> np.ndarray:
    return np.asarray(imagecodecs.jpeg8_decode(jpeg()))


def in_jpeg(values: np.ndarray, colours: str, right: np.ndarray, apart: int, **options: object) -> File:
    made = {"photometric": colours, "compression": "jpeg", "compressionargs": options}
    return read(lambda: tiff(values, **made), right, apart)


def rgb_of_extra(kind: int, wide: bool) -> File:
    """Colours and a sample to be passed over: unspecified, or an alpha that they are not multiplied with."""
    samples = np.dstack([SMOOTH, GREY])
    made = {"photometric": "rgb", "extrasamples": [kind], "planarconfig": "contig"}
    return read(lambda: tiff(samples.astype(np.uint16) * 257 if wide else samples, **made), SMOOTH)


def divided(planes: str, wide: bool) -> File:
    """Colours that were multiplied with alpha are divided by it."""
    alpha = np.maximum(GREY, 128)
    colours = (SMOOTH.astype(int) * alpha[..., None] // 255).astype(np.uint8)
    samples = np.dstack([colours, alpha]).astype(np.uint16) * 257 if wide else np.dstack([colours, alpha])
    shaped = samples if planes == "contig" else np.moveaxis(samples, -1, 0)
    made = {"photometric": "rgb", "extrasamples": [1], "planarconfig": planes}
    return read(lambda: tiff(shaped, **made), SMOOTH, 3)


def metadata(name: bytes, body: bytes, checksum: int | None = None) -> File:
    return read(lambda: png(GREY, 8, 0, before=chunk(name, body, checksum)), as_rgb(GREY))


BIG = imagecodecs.zlib_encode(b"a" * 3_000_000)

ROWS = [
    Row(
        "JPEG",
        "grey, YCbCr and RGB of 8 bits; lossless; the first of an MPO",
        "as stored",
        [
            File(jpeg, by(imagecodecs.jpeg8_decode)),
            File(lambda: encoded(SMOOTH, "JPEG", progressive=True), by(imagecodecs.jpeg8_decode)),
            File(lambda: encoded(GREY, "JPEG"), by(imagecodecs.jpeg8_decode)),
            File(lambda: encoded(SMOOTH, "MPO", save_all=True, append_images=[]), by(imagecodecs.jpeg8_decode)),
            read(lambda: deep_jpeg(SMOOTH, 8, True), SMOOTH),
            read(lambda: deep_jpeg(np.ascontiguousarray(GREY), 8, True), as_rgb(GREY)),
        ],
    ),
    Row(
        "JPEG",
        "with damaged EXIF, ICC, Photoshop, JFIF or Adobe segments",
        "as stored",
        [
            File(lambda body=body, marker=marker: with_segment(jpeg(), marker, body), same_jpeg)
            for marker, body in [
                (0xE1, b"Exif\0\0II*\0\x08\0\0\0\x05"),
                (0xE2, b"ICC_PROFILE\0"),
                (0xE2, b"MPF\0II*\0\x08\0\0\0\x05"),
                (0xED, b"Photoshop 3.0\x008BIM\x04\x04"),
                (0xEE, b"Adobe\0"),
                (0xE0, b"JFIF\0"),
            ]
        ],
    ),
    Row(
        "JPEG",
        "grey of 12 and 16 bits, lossy and lossless; JPEG-LS",
        "scaled",
        [
            read(lambda: deep_jpeg(DEEP, 12, False), scaled(DEEP), 3),
            read(lambda: deep_jpeg(DEEP, 12, True), scaled(DEEP)),
            read(lambda: deep_jpeg(DEEP * 16, 16, True), scaled(DEEP)),
            read(lambda: imagecodecs.jpegls_encode(DEEP), scaled(DEEP)),
        ],
    ),
    Row(
        "JPEG",
        "colours of 12 bits",
        "the upper 8 bits",
        [
            read(lambda: deep_jpeg(SMOOTH.astype(np.uint16) * 16, 12, False), SMOOTH, 6),
            read(lambda: deep_jpeg(SMOOTH.astype(np.uint16) * 16, 12, True), SMOOTH),
            read(lambda: imagecodecs.jpegls_encode(SMOOTH), SMOOTH),
        ],
    ),
    Row(
        "JPEG",
        "hierarchical; lossless with arithmetic coding",
        "`unsupported`",
        [
            refused(arithmetic, "arithmetic"),
            refused(lambda: jpeg().replace(b"\xff\xc0", b"\xff\xc5", 1), "hierarchical"),
        ],
    ),
    Row(
        "PNG",
        "grey, palette and RGB of 1 to 8 bits, with alpha or not, interlaced or not",
        "as stored",
        [
            *(
                read(lambda bits=bits: encoded(Image.fromarray(MASK), "PNG", bits=bits), as_rgb(MASK) * 255)
                for bits in (1, 8)
            ),
            read(lambda: png(GREY, 8, 0), as_rgb(GREY)),
            read(lambda: png(np.dstack([GREY, GREY]), 8, 4), as_rgb(GREY)),
            File(lambda: png(SMOOTH, 8, 2), by(imagecodecs.png_decode)),
            read(lambda: png(np.dstack([SMOOTH, GREY]), 8, 6), SMOOTH),
            File(lambda: encoded(Image.fromarray(SMOOTH).quantize(16), "PNG", bits=4), by(imagecodecs.png_decode)),
        ],
    ),
    Row(
        "PNG",
        "grey of 16 bits, with alpha or not",
        "scaled",
        [
            read(lambda: png(DEEP, 16, 0), scaled(DEEP)),
            read(lambda: png(np.dstack([DEEP, np.full_like(DEEP, 65535)]), 16, 4), scaled(DEEP)),
            read(lambda: png(np.dstack([DEEP, DEEP]), 16, 4), scaled(DEEP)),
        ],
    ),
    Row(
        "PNG",
        "RGB of 16 bits, with alpha or not",
        "the upper 8 bits",
        [
            read(lambda: png(WIDE, 16, 2), SMOOTH),
            read(lambda: png(np.dstack([WIDE, DEEP]), 16, 6), SMOOTH),
        ],
    ),
    Row(
        "PNG",
        "with text, profile or other additions of any size, or damaged",
        "as stored",
        [
            metadata(b"zTXt", b"Comment\0\0" + BIG),
            metadata(b"iCCP", b"Profile\0\0" + BIG),
            metadata(b"tEXt", b"Comment\0a", checksum=1),
            metadata(b"iTXt", b"x"),
            metadata(b"eXIf", b"II*\0\xff\xff\xff\xff"),
            metadata(b"gAMA", b""),
        ],
    ),
    Row(
        "PNG",
        "Apple's own (CgBI)",
        "`unsupported`",
        [refused(lambda: png(GREY, 8, 0, first=chunk(b"CgBI", b"\x50\0\x20\2")), "CgBI")],
    ),
    Row(
        "BMP",
        "of 1 to 32 bits",
        "as stored",
        [
            File(lambda: encoded(SMOOTH, "BMP"), by(imagecodecs.bmp_decode)),
            read(lambda: encoded(GREY, "BMP"), as_rgb(GREY)),
            read(lambda: encoded(MASK, "BMP"), as_rgb(MASK) * 255),
        ],
    ),
    Row(
        "BMP",
        "with JPEG or PNG in it",
        "`unsupported`",
        [refused(lambda code=code: bmp()[:30] + bytes([code]) + bmp()[31:], "compression") for code in (4, 5)],
    ),
    Row("GIF", "the first frame", "as stored", [File(lambda: encoded(GREY, "GIF"), by(imagecodecs.gif_decode))]),
    Row(
        "WebP",
        "lossy and lossless, with alpha or not; the first frame",
        "as stored",
        [
            read(lambda: encoded(SMOOTH, "WEBP", lossless=True), SMOOTH),
            File(lambda: encoded(SMOOTH, "WEBP"), by(imagecodecs.webp_decode)),
        ],
    ),
    Row(
        "TIFF",
        "grey of 1 to 8 bits and RGB of up to 8, by pixel or in planes",
        "as stored",
        [
            *(
                packed(bits, colours)
                for bits in (2, 3, 4, 5, 6, 7, 8)
                for colours in ("minisblack", "miniswhite", "rgb")
            ),
            *(
                File(lambda c=colours: tiff(MASK, photometric=c), libtiff)
                for colours in ("minisblack", "miniswhite")
            ),
        ],
    ),
    Row(
        "TIFF",
        "grey of 9 to 64 bits, grey with a sign, floats of 16 to 64 bits",
        "scaled",
        [
            *(packed(bits, colours) for bits in range(9, 17) for colours in ("minisblack", "miniswhite")),
            *(
                read(lambda kind=kind, c=c: tiff(DEEP.astype(kind), photometric=c), right, 1)
                for kind in ("u4", "u8", "i2", "i4", "i8", "f4", "f8", ">u2", ">f8")
                for c, right in (("minisblack", scaled(DEEP)), ("miniswhite", 255 - scaled(DEEP)))
            ),
            read(lambda: tiff((GREY.astype(int) - 128).astype(np.int8), photometric="minisblack"), scaled(GREY)),
        ],
    ),
    Row(
        "TIFF",
        "RGB of 9 to 16 bits, by pixel or in planes",
        "the upper 8 bits",
        [
            *(packed(bits, "rgb") for bits in range(9, 17)),
            read(lambda: tiff(np.moveaxis(WIDE, -1, 0), photometric="rgb", planarconfig="separate"), SMOOTH),
        ],
    ),
    Row(
        "TIFF",
        "RGB of 32 and 64 bits, with a sign, and of floats",
        "scaled, three samples alike",
        [
            read(lambda kind=kind: tiff(SMOOTH.astype(kind) * 100 - 5000, photometric="rgb"), scaled(SMOOTH), 1)
            for kind in ("i2", "i4", "i8", "f4", "f8")
        ],
    ),
    Row(
        "TIFF",
        "more samples than colours: grey and RGB with 1 to 8 others",
        "without the others",
        [
            *(
                read(
                    lambda n=n, p=p: tiff(
                        np.dstack([DEEP, *[DEEP[::-1]] * n])
                        if p == "contig"
                        else np.stack([DEEP, *[DEEP[::-1]] * n]),
                        photometric="minisblack",
                        planarconfig=p,
                    ),
                    scaled(DEEP),
                )
                for n in (1, 2, 4, 8)
                for p in ("contig", "separate")
            ),
            *(
                File(
                    lambda n=n: tiff(np.dstack([GREY] * n), photometric="minisblack", planarconfig="contig"),
                    libtiff,
                )
                for n in (2, 3, 5)
            ),
            *(rgb_of_extra(kind, wide) for kind in (0, 2) for wide in (False, True)),
            read(lambda: tiff(np.dstack([SMOOTH, GREY, GREY]), photometric="rgb", extrasamples=[0, 0]), SMOOTH),
            read(
                lambda: tiff(
                    np.dstack([GREY, GREY]), photometric="minisblack", extrasamples=[1], planarconfig="contig"
                ),
                as_rgb(np.where(GREY, 255, 0)),
            ),
        ],
    ),
    Row(
        "TIFF",
        "RGB that was multiplied with its alpha",
        "divided by it",
        [divided(planes, wide) for planes in ("contig", "separate") for wide in (False, True)],
    ),
    Row(
        "TIFF",
        "palettes of 1 to 16 bits",
        "the upper 8 bits of their colours",
        [
            File(lambda: tiff(GREY, photometric="palette", colormap=COLOUR_MAP[:, :256]), libtiff),
            File(
                lambda: tiff(GREY, photometric="palette", colormap=COLOUR_MAP[:, :256], compression="lzw"), libtiff
            ),
            read(
                lambda: tiff(DEEP, photometric="palette", colormap=COLOUR_MAP),
                np.moveaxis(COLOUR_MAP >> 8, 0, -1)[DEEP],
            ),
        ],
    ),
    Row(
        "TIFF",
        "CMYK of 8 and 16 bits",
        "made RGB",
        [
            File(lambda: tiff(CMYK, photometric="separated"), libtiff, 1),
            File(
                lambda: tiff(np.moveaxis(CMYK, -1, 0), photometric="separated", planarconfig="separate"), libtiff, 1
            ),
            *(
                File(
                    lambda made=made: tiff(CMYK.astype(np.uint16) * 257, photometric="separated", **made),
                    lambda data: libtiff(tiff(CMYK, photometric="separated")),
                    1,
                )
                for made in ({}, {"compression": "lzw"})
            ),
        ],
    ),
    Row(
        "TIFF",
        "YCbCr of 8 and 16 bits",
        "made RGB",
        [
            File(lambda: tiff(SMOOTH, photometric="ycbcr", subsampling=(1, 1)), libtiff, 1),
            File(lambda: tiff(SMOOTH, photometric="ycbcr", subsampling=(1, 1), compression="lzw"), libtiff, 1),
            File(
                lambda: tiff(WIDE, photometric="ycbcr", subsampling=(1, 1)),
                lambda data: libtiff(tiff(SMOOTH, photometric="ycbcr", subsampling=(1, 1))),
                1,
            ),
        ],
    ),
    Row(
        "TIFF",
        "CIELab of 8 bits",
        "made RGB",
        [File(lambda: tiff(LAB, photometric="cielab"), lambda data: srgb(LAB), 5)],
    ),
    Row(
        "TIFF",
        "Orientation",
        "applied",
        [
            turned(turn, values, right)
            for turn in range(1, 9)
            for values, right in ((GREY, as_rgb(GREY)), (DEEP, scaled(DEEP)))
        ],
    ),
    Row(
        "TIFF",
        "fax (CCITT 2, 3, 4), LZW, Deflate, PackBits, LZMA, Zstandard, with predictors; either order of bits",
        "read",
        [
            File(lambda c=c: encoded(Image.fromarray(MASK), "TIFF", compression=c), libtiff)
            for c in ("group3", "group4", "tiff_ccitt", "tiff_lzw", "tiff_adobe_deflate", "packbits")
        ]
        + [
            read(
                lambda values=values, colours=colours: raw_tiff(
                    imagecodecs.bitorder_encode(values.tobytes()),
                    [8 * values.itemsize],
                    {262: (3, [colours]), 266: (3, [2])},
                ),
                right if colours else 255 - right,
            )
            for values, right in ((GREY, as_rgb(GREY)), (DEEP, scaled(DEEP)))
            for colours in (0, 1)
        ],
    ),
    Row(
        "TIFF",
        "JPEG of 8 and 12 bits and lossless, old JPEG (6)",
        "read",
        [
            File(lambda: tiff(SMOOTH, photometric="rgb", compression="jpeg"), libtiff),
            File(lambda: tiff(SMOOTH, photometric="ycbcr", compression="jpeg", subsampling=(2, 2)), libtiff),
            File(lambda: tiff(GREY, photometric="minisblack", compression="jpeg"), libtiff),
            File(lambda: tiff(GREY, photometric="miniswhite", compression="jpeg"), libtiff),
            in_jpeg(DEEP, "minisblack", scaled(DEEP), 3, bitspersample=12),
            in_jpeg(SMOOTH.astype(np.uint16) * 16, "rgb", SMOOTH.astype(int), 6, bitspersample=12),
            in_jpeg(DEEP, "minisblack", scaled(DEEP), 0, bitspersample=16, lossless=True),
            File(
                lambda: raw_tiff(grey_jpeg(), [8], {259: (3, [6]), 262: (3, [1]), 513: (4, [8])}),
                lambda data: as_rgb(np.asarray(imagecodecs.tiff_decode(data))),
            ),
            File(
                lambda: raw_tiff(
                    jpeg(),
                    [8, 8, 8],
                    {259: (3, [6]), 262: (3, [6]), 513: (4, [8]), 514: (4, [len(jpeg())]), 530: (3, [2, 2])},
                ),
                libtiff,
            ),
        ],
    ),
    Row("TIFF", "JPEG 2000", "read", inside("jpeg2000")),
    Row("TIFF", "JPEG XL", "read", inside("jpegxl")),
    Row("TIFF", "PNG", "read", inside("png")),
    Row("TIFF", "WebP", "read", inside("webp", level=100)),
    Row(
        "TIFF",
        "LERC",
        "read",
        [
            *inside("lerc"),
            read(lambda: tiff(FRACTIONS, photometric="minisblack", compression="lerc"), scaled(DEEP), 1),
        ],
    ),
    Row(
        "TIFF",
        "complex values, several depths in one pixel",
        "`unsupported`",
        [
            refused(lambda: tiff(DEEP.astype(np.complex64), photometric="minisblack"), "complex"),
            refused(lambda: tiff(DEEP.astype(np.complex128), photometric="minisblack"), "complex"),
            refused(lambda: raw_tiff(DEEP.tobytes(), [5, 6, 5], {262: (3, [2])}), "several kinds"),
        ],
    ),
    Row(
        "TIFF",
        "raw values of a camera (CFA), LogL and LogLuv, ICCLab, CIELab of 16 bits, inks other than CMYK",
        "`unsupported`",
        [
            refused(lambda: raw_tiff(DEEP.tobytes(), [16], {262: (3, [32803])}), "CFA"),
            refused(lambda: raw_tiff(DEEP.tobytes(), [16], {262: (3, [32844]), 259: (3, [34676])}), "SGILOG"),
            refused(lambda: raw_tiff(SMOOTH.tobytes(), [8, 8, 8], {262: (3, [9])}), "ICCLAB"),
            refused(lambda: tiff(WIDE, photometric="cielab"), "CIELAB"),
            refused(
                lambda: raw_tiff(CMYK.astype("<u2").tobytes(), [16] * 4, {262: (3, [5]), 332: (3, [2])}), "inks"
            ),
        ],
    ),
    Row(
        "TIFF",
        "YCbCr of fewer colours than pixels, without JPEG",
        "`unsupported`",
        [refused(subsampled, "YCbCr")],
    ),
    Row(
        "TIFF",
        "JPEG XR, JBIG, NeXT, LERC with Deflate, codecs that are not known",
        "`unsupported`",
        [
            refused(lambda: tiff(GREY, photometric="minisblack", compression="jpegxr"), "JPEGXR"),
            *(
                refused(lambda c=c: raw_tiff(GREY.tobytes(), [8], {262: (3, [1]), 259: (3, [c])}), name)
                for c, name in ((34661, "JBIG"), (32766, "NEXT"), (12345, "12345"))
            ),
            refused(
                lambda: tiff(
                    DEEP, photometric="minisblack", compression="lerc", compressionargs={"compression": "deflate"}
                ),
                "LERC with Deflate",
            ),
        ],
    ),
    Row(
        "TIFF",
        "what a tag leaves out: PhotometricInterpretation, RowsPerStrip, StripByteCounts, SampleFormat 0 or 4",
        "as libtiff",
        [
            File(lambda: raw_tiff(GREY.tobytes(), [8], {}), libtiff),
            read(lambda: raw_tiff(SMOOTH.tobytes(), [8, 8, 8], {}), SMOOTH),
            read(lambda: raw_tiff(DEEP.tobytes(), [16], {}), scaled(DEEP)),
            read(lambda: raw_tiff(DEEP.tobytes(), [16], {262: (3, [1]), 279: (4, [9])}), scaled(DEEP)),
            *(
                read(
                    lambda kind=kind: raw_tiff(DEEP.tobytes(), [16], {262: (3, [1]), 339: (3, [kind])}),
                    scaled(DEEP),
                )
                for kind in (0, 4)
            ),
        ],
    ),
    Row(
        "TIFF",
        "with damaged EXIF, GPS, profile or other tags for people",
        "as stored",
        [
            read(
                lambda values=values, tags=tags: raw_tiff(
                    values.tobytes(), [8 * values.itemsize], {262: (3, [1]), **tags}
                ),
                right,
            )
            for values, right in ((GREY, as_rgb(GREY)), (DEEP, scaled(DEEP)))
            for tags in (
                {34665: (4, [99_999_999])},
                {34853: (4, [5])},
                {282: (2, [65, 0]), 283: (2, [65, 0]), 296: (3, [3])},
                {65000: (12, [1.0] * 400_000)},
            )
        ],
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.format} {row.what}"[:60])
def test_is_shown_as_another_reader_has_it(row: Row) -> None:
    for number, file in enumerate(row.files):
        data = file.make()
        if file.right is None:
            with pytest.raises(ImageFailure) as caught:
                decode(data, LIMIT)
            assert caught.value.kind is FailureKind.UNSUPPORTED, number
            assert file.says in caught.value.detail
        else:
            right = file.right(data)
            shown = np.asarray(decode(data, LIMIT)).astype(int)
            assert shown.shape == right.shape, number
            assert np.abs(shown - right).max() <= file.apart, number


def test_the_table_of_the_docs() -> None:
    lines = ["| format | what | shown |", "|---|---|---|"]
    lines += [f"| {row.format} | {row.what} | {row.result} |" for row in ROWS]
    found = re.search(r"<!-- tests/formats -->\n(.*?)\n<!-- end -->", DOCS.read_text(), re.DOTALL)
    assert found is not None
    assert found[1] == "\n".join(lines)
    assert f"{sum(1 for _ in cases()):,} TIFF files" in DOCS.read_text()
