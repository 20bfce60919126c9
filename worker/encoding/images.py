"""A file's bytes → RGB pixels, or a failure with a kind and a sentence: what Pillow reads.

Pixels are what the reference method has, `Image.open(path).convert("RGB")`: as stored, EXIF orientation not
applied (TIFF's own Orientation is), the first frame of an animation. The one difference is grey of more than 8
bits, which Pillow's plain conversion clips to white and which is scaled here to the image's own range. What Pillow
does not read, or not rightly, is in `formats/`.
"""

import io
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Imported for their effect: each registers its format, so that no thread registers them during a decode.
from PIL import (  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ...models.states import FailureKind

# An MPO file (two JPEGs in one) is opened as JPEG: Pillow then takes the MPO plugin itself.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF")

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"GIF8": "GIF",
}
_PART_PIXELS = 1 << 16

# Measured with Pillow 13, 20 million pixels, every mode a format has: see `decoding_bytes`.
_BYTES_PER_PIXEL = {
    "JPEG": 12,  # CMYK, progressive: 4 in the image, 8 in libjpeg's coefficients of the whole image
    "MPO": 12,
    "PNG": 10,  # 4 in the image, 4 in its RGB copy; grey of 16 bits: 2 and 4, 1 in what is scaled and a passing 1
    "BMP": 8,
    "DIB": 8,
    "TIFF": 13,  # RGBA of 16 bits in one strip: 8 in the strip, 4 in the image
    "WEBP": 18,  # 4 each in libwebp's two canvases, the frame as bytes, the image; a lossless frame's cache
    "GIF": 7,
}
_BYTES_PER_IMAGE = 4 * 1024**2  # lines, tables and what `own_scale` has of a part
_MCU_PIXELS = 32
_TILE_WIDTH, _TILE_LENGTH = 322, 323

# Pillow keeps an object of 50 to 200 bytes for each segment, chunk or tag value that it reads, were it of one byte:
# an image has no need of so many.
_MAX_READS = 200_000
_BYTES_PER_READ = 64
_MAX_TAG_BYTES = 2 * 1024**2
_BYTES_KEPT_AS_THEY_ARE = (1, 2, 7)  # TIFF's types byte, ASCII, undefined

# What Pillow would warn about or log ends as an ImageFailure or does not matter, and a filter set per call would
# not be safe between threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def _bound_tags() -> None:
    """Make a TIFF's or EXIF's directory refuse to unpack more than `_MAX_TAG_BYTES` of values."""

    def bounded(load: Callable[..., Any]) -> Callable[..., Any]:
        def load_some(directory: Any, data: bytes, *args: Any) -> Any:
            directory.unpacked = getattr(directory, "unpacked", 0) + len(data)
            if directory.unpacked > _MAX_TAG_BYTES:
                raise ValueError("too many tag values")
            return load(directory, data, *args)

        return load_some

    loaders = TiffImagePlugin.ImageFileDirectory_v2._load_dispatch
    for kind, (size, load) in loaders.items():
        if kind not in _BYTES_KEPT_AS_THEY_ARE:
            loaders[kind] = size, bounded(load)


_bound_tags()


class ImageFailure(Exception):  # noqa: N818  (it is a result of a scan, not a fault of the program)
    """A scan that cannot be embedded: `kind` for programs, `detail` one sentence for people."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail

    def __reduce__(self) -> tuple[type["ImageFailure"], tuple[FailureKind, str]]:
        return type(self), (self.kind, self.detail)


class Source(io.BytesIO):
    """A file's content that Pillow may read in so many parts only."""

    def __init__(self, data: bytes, header: bytes = b"") -> None:
        """Args:
        data: the whole file.
        header: is read in place of the first bytes: one that names another page of a TIFF as its first.
        """
        super().__init__(data)
        self.reads_left: int | None = _MAX_READS + len(data) // _BYTES_PER_READ
        self._header = header

    def count_read(self) -> None:
        """Raise ValueError where it was read in more parts than a picture has."""
        if self.reads_left is not None:
            self.reads_left -= 1
            if self.reads_left < 0:
                raise ValueError("too many parts")

    def read(self, size: int | None = -1, /) -> bytes:
        self.count_read()
        start = self.tell()
        data = super().read(size)
        if start < len(self._header):
            header = self._header[start : start + len(data)]
            return header + data[len(header) :]
        return data


def open_image(source: Source, max_pixels: int) -> Image.Image:
    """Read a file's header. Safe to call from several threads, with the same `max_pixels` in all.

    Args:
        source: the whole file.
        max_pixels: width × height above which nothing is decoded.

    Returns:
        The image, of which format, mode and size are known, and no pixel is decoded.

    Raises:
        ImageFailure: EMPTY, NOT_AN_IMAGE, TRUNCATED (cut short or damaged), UNSUPPORTED or TOO_LARGE.
    """
    if not source.getvalue():
        raise ImageFailure(FailureKind.EMPTY, "The file is empty.")
    # Twice this is what Pillow refuses. It allocates for GIF and WebP while it opens them, and asks only this.
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    try:
        image = Image.open(source, formats=FORMATS)
        pixels = max(image.width * image.height, _tile_pixels(image))
    except Image.DecompressionBombError as error:
        raise too_many_pixels(max_pixels) from error
    except Exception as error:  # Pillow's parsers raise nearly anything on bad bytes
        raise _opening_failure(source.getvalue(), error) from error
    if pixels > max_pixels:
        raise too_many_pixels(max_pixels)
    return image


def load(image: Image.Image, source: Source) -> None:
    """Decode the pixels of an opened image, in the mode of the file.

    Raises:
        ImageFailure: TRUNCATED, UNSUPPORTED or TOO_LARGE.
    """
    if image.format != "PNG":  # it alone has chunks after its pixels; BMP's runs are read byte by byte
        source.reads_left = None
    try:
        image.load()
    except Exception as error:
        raise _decoding_failure(image, error) from error


def is_deep_grey(image: Image.Image) -> bool:
    """Whether it is grey of more than 8 bits a pixel."""
    return image.mode.startswith("I") or image.mode == "F"


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image's pixels in RGB; it is not grey of more than 8 bits.

    Raises:
        ImageFailure: NOT_AN_IMAGE or TOO_LARGE.
    """
    try:
        if image.mode == "La":  # Pillow turns it into RGB by this way only
            image = image.convert("LA")
        return image.convert("RGB")
    except MemoryError as error:
        raise _decoding_failure(image, error) from error
    except Exception as error:
        raise ImageFailure(
            FailureKind.NOT_AN_IMAGE, f"Its {image.mode} colours cannot be turned into RGB ({one_line(error)})."
        ) from error


def grey_to_rgb(image: Image.Image, scale: Callable[[NDArray[Any]], NDArray[Any]]) -> Image.Image:
    """A loaded grey image in RGB; `scale` turns its values, a part at a time, into 0 to 255."""
    grey = np.empty((image.height, image.width), np.uint8)
    for (left, top, right, bottom), part in grey_parts(image):
        grey[top:bottom, left:right] = scale(part)
    return Image.fromarray(grey).convert("RGB")


def grey_parts(image: Image.Image) -> Iterator[tuple[tuple[int, int, int, int], NDArray[Any]]]:
    """(box, values) of parts of a grey image: NumPy's copy of a whole one takes twice its memory."""
    width = min(image.width, _PART_PIXELS)
    height = _PART_PIXELS // width
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            box = (left, top, min(left + width, image.width), min(top + height, image.height))
            yield box, np.asarray(image.crop(box))


def own_scale(parts: Iterable[NDArray[Any]]) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """The scale of a single picture: from its smallest finite value to its largest.

    Args:
        parts: all its values, of any number type.

    Returns:
        Turns values of any shape into 0 to 255, rounded to the nearest; those of a constant picture into 0. Not a
        number is 0, infinities are the ends.

    Raises:
        ImageFailure: NOT_AN_IMAGE, no value is finite.
    """
    # Python floats: a difference of two 32-bit values can be too large for 32 bits.
    low, high = math.inf, -math.inf
    for part in chain.from_iterable(map(_rows, parts)):
        finite = part[np.isfinite(part)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        raise ImageFailure(FailureKind.NOT_AN_IMAGE, "The image holds no finite pixel value.")
    scale = 255.0 / (high - low) if high > low else 0.0

    def scaled(values: NDArray[Any]) -> NDArray[np.uint8]:
        grey = np.empty(values.shape, np.uint8)
        for row, to in zip(_rows(values), _rows(grey), strict=True):
            exact = np.nan_to_num(row.astype(np.float64), copy=False, nan=low, posinf=high, neginf=low)
            to[...] = np.rint((exact - low) * scale)
        return grey

    return scaled


def decoding_bytes(image: Image.Image, file_bytes: int) -> int:
    """An upper bound of the memory that making an RGB picture takes besides the file's content, in bytes.

    Args:
        image: as `open_image` has it.
        file_bytes: the file's size.
    """
    margin = _MCU_PIXELS - 1 if image.format in ("JPEG", "MPO") else 0  # it is coded in blocks
    pixels = (image.width + margin) * (image.height + margin)
    copies = 2 * file_bytes if image.format == "WEBP" else 0
    return _BYTES_PER_PIXEL[str(image.format)] * pixels + 8 * _tile_pixels(image) + copies + _BYTES_PER_IMAGE


def thumbnail(image: Image.Image, size: int) -> bytes:
    """A JPEG of the whole image that fits size × size pixels; a smaller image is not enlarged."""
    scale = min(1.0, size / max(image.size))
    fitted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image if fitted == image.size else image.resize(fitted, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture = small.convert("RGB")
    picture.info.clear()  # a comment in the file may name the patient, and Pillow would save it again
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    return buffer.getvalue()


def readable_bytes(count: int) -> str:
    """`2 GiB`, `1.5 MiB`, `12 bytes`."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} bytes"


def too_many_pixels(limit: int) -> ImageFailure:
    return ImageFailure(FailureKind.TOO_LARGE, f"The image has more than {limit:,} pixels (SCANOMALY_MAX_PIXELS).")


def _tile_pixels(image: Image.Image) -> int:
    """How many pixels a tile of a tiled TIFF has, which libtiff decodes as a whole; 0 without tiles."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0
    width, length = (image.tag_v2.get(tag) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    return width * length if isinstance(width, int) and isinstance(length, int) else 0


def _opening_failure(data: bytes, error: Exception) -> ImageFailure:
    if isinstance(error, MemoryError):
        return ImageFailure(FailureKind.TOO_LARGE, "The image did not fit into memory.")
    name = _signature(data)
    if name is not None:
        if _is_unsupported(error):
            return ImageFailure(
                FailureKind.UNSUPPORTED, f"The {name} is of a kind that is not read ({one_line(error)})."
            )
        return ImageFailure(
            FailureKind.TRUNCATED, f"The file begins as {name} but its header is cut short or damaged."
        )
    known = ", ".join([*(name for name in FORMATS if name != "DIB"), "DICOM, NIfTI"])
    return ImageFailure(FailureKind.NOT_AN_IMAGE, f"The content is none of {known}.")


def _signature(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), None)


def damage(form: str, error: Exception) -> ImageFailure:
    """The failure of a picture whose decoder raised an error: of memory, or else of what the file holds."""
    if isinstance(error, MemoryError):
        return ImageFailure(FailureKind.TOO_LARGE, "The image did not fit into memory.")
    return ImageFailure(FailureKind.TRUNCATED, f"The {form} data is cut short or damaged ({one_line(error)}).")


def _decoding_failure(image: Image.Image, error: Exception) -> ImageFailure:
    if not isinstance(error, MemoryError) and _is_unsupported(error):
        return ImageFailure(
            FailureKind.UNSUPPORTED, f"The {image.format} is of a kind that is not read ({one_line(error)})."
        )
    return damage(str(image.format), error)


def _is_unsupported(error: Exception) -> bool:
    """Whether Pillow says that it lacks something, rather than that the file does."""
    return "unsupported" in str(error).lower()


def one_line(error: Exception) -> str:
    """What an error says, for a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:119] + "…"


def _rows(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of parts of an array: NumPy's copies of a whole one cost more."""
    step = max(1, _PART_PIXELS * len(values) // max(1, values.size))
    for start in range(0, len(values), step):
        yield values[start : start + step]
