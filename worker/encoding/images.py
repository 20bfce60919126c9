"""A file's bytes → RGB pixels, or a failure with a kind and a sentence. Pillow and NumPy only.

Pixels are what the reference method has, `Image.open(path).convert("RGB")`: as stored, EXIF orientation not
applied, the first frame of an animation. The one difference is grey of more than 8 bits, which Pillow's plain
conversion clips to white and which is scaled here to the image's own range.
"""

import errno
import io
import logging
import os
import stat
import warnings
from pathlib import Path

import numpy as np

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
MAX_FILE_BYTES = 2 * 1024**3
"""A file above this is not read at all: no image under `max_pixels` needs it."""

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"GIF8": "GIF",
}
_STRIP_PIXELS = 1 << 20

# decode() checks sizes itself, before any pixel, against the setting. What Pillow would warn about or log ends
# as an ImageFailure or does not matter, and a filter set per call would not be safe between threads.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class ImageFailure(Exception):  # noqa: N818  (it is a result of a scan, not a fault of the program)
    """A scan that cannot be embedded: `kind` for programs, `detail` one sentence for people."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail

    def __reduce__(self) -> tuple[type["ImageFailure"], tuple[FailureKind, str]]:
        return type(self), (self.kind, self.detail)


def read_file(path: Path) -> bytes:
    """Read a whole regular file. Never waits for a pipe or a device.

    Raises:
        ImageFailure: MISSING, UNREADABLE, EMPTY or TOO_LARGE.
        OSError: this process, not the file, is at fault: it has no file descriptor or memory left.
    """
    try:
        # A FIFO without a writer would block a plain open().
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            _check_regular(os.fstat(file.fileno()))
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _reading_failure(error) from error
    if not data:
        raise ImageFailure(FailureKind.EMPTY, "The file is empty.")
    if len(data) > MAX_FILE_BYTES:
        raise _file_too_large(len(data))
    return data


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an image file's content. Safe to call from several threads.

    Args:
        data: the whole file.
        max_pixels: width × height above which nothing is decoded.

    Returns:
        The image in mode RGB, 8 bits a channel, as stored. Grey of 16 or 32 bits, integer or float, is scaled
        from its own minimum and maximum to 0 and 255; a constant image is black.

    Raises:
        ImageFailure: NOT_AN_IMAGE, TRUNCATED (cut short or damaged) or TOO_LARGE.
    """
    if not data:
        raise ImageFailure(FailureKind.EMPTY, "The file is empty.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow's parsers raise nearly anything on bad bytes
        raise _opening_failure(data, error) from error
    _check_size(image, max_pixels)
    try:
        image.load()
    except Exception as error:
        raise _decoding_failure(image, error) from error
    return _to_rgb(image)


def thumbnail(image: Image.Image, size: int) -> bytes:
    """A JPEG of the whole image that fits size × size pixels; a smaller image is not enlarged."""
    scale = min(1.0, size / max(image.size))
    fitted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image if fitted == image.size else image.resize(fitted, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.convert("RGB").save(buffer, "JPEG", quality=82, optimize=True)
    return buffer.getvalue()


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageFailure(FailureKind.UNREADABLE, "The path is a pipe, socket or device, not a regular file.")
    if status.st_size > MAX_FILE_BYTES:
        raise _file_too_large(status.st_size)


def _file_too_large(size: int) -> ImageFailure:
    limit = MAX_FILE_BYTES / 1024**3
    return ImageFailure(
        FailureKind.TOO_LARGE, f"The file has {size / 1024**3:.1f} GiB or more; the limit is {limit:g} GiB."
    )


def _reading_failure(error: OSError | ValueError) -> Exception:
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return error
    if number in (errno.ENOENT, errno.ENOTDIR):
        return ImageFailure(FailureKind.MISSING, "The file is no longer there.")
    if number == errno.EISDIR:
        return ImageFailure(FailureKind.UNREADABLE, "The path is a folder, not a file.")
    if number in (errno.EACCES, errno.EPERM):
        return ImageFailure(FailureKind.UNREADABLE, "The worker has no permission to read the file.")
    reason = getattr(error, "strerror", None) or str(error)
    return ImageFailure(FailureKind.UNREADABLE, f"The file cannot be read: {reason}.")


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width < 1 or image.height < 1:
        raise ImageFailure(FailureKind.NOT_AN_IMAGE, "The image has no pixels.")
    if image.width * image.height > max_pixels:
        raise ImageFailure(
            FailureKind.TOO_LARGE,
            f"The image has {image.width} × {image.height} pixels; the limit is {max_pixels:,} pixels in all.",
        )


def _opening_failure(data: bytes, error: Exception) -> ImageFailure:
    if isinstance(error, MemoryError):
        return ImageFailure(FailureKind.TOO_LARGE, "The image did not fit into memory.")
    name = _signature(data)
    if name is not None:
        return ImageFailure(
            FailureKind.TRUNCATED, f"The file begins as {name} but its header is cut short or damaged."
        )
    if data[128:132] == b"DICM":
        return ImageFailure(FailureKind.NOT_AN_IMAGE, "The file is DICOM: export it as PNG or TIFF first.")
    known = ", ".join(name for name in FORMATS if name != "DIB")
    return ImageFailure(FailureKind.NOT_AN_IMAGE, f"The content is none of {known}.")


def _signature(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), None)


def _decoding_failure(image: Image.Image, error: Exception) -> ImageFailure:
    if isinstance(error, MemoryError):
        return ImageFailure(FailureKind.TOO_LARGE, "The image did not fit into memory.")
    return ImageFailure(
        FailureKind.TRUNCATED, f"The {image.format} data is cut short or damaged ({_one_line(error)})."
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:119] + "…"


def _to_rgb(image: Image.Image) -> Image.Image:
    try:
        if image.mode.startswith("I") or image.mode == "F":
            return _scale_to_8_bits(image)
        return image.convert("RGB")
    except ImageFailure:
        raise
    except MemoryError as error:
        raise _decoding_failure(image, error) from error
    except Exception as error:
        raise ImageFailure(
            FailureKind.NOT_AN_IMAGE, f"Its {image.mode} colours cannot be turned into RGB ({_one_line(error)})."
        ) from error


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageFailure(FailureKind.NOT_AN_IMAGE, "The image holds no finite pixel value.")
    # Python floats: a difference of two 32-bit values can be too large for 32 bits.
    low, high = float(values[finite].min()), float(values[finite].max())
    scale = 255.0 / (high - low) if high > low else 0.0
    grey = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // values.shape[1])  # in strips, so that float64 costs little memory
    for top in range(0, values.shape[0], rows):
        strip = values[top : top + rows].astype(np.float64)
        strip = np.nan_to_num(strip, copy=False, nan=low, posinf=high, neginf=low)
        grey[top : top + rows] = np.rint((strip - low) * scale)
    return Image.fromarray(grey).convert("RGB")
