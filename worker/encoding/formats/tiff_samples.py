"""The pages of a TIFF that Pillow does not read, or not rightly, by tifffile and the codecs of imagecodecs.

Pillow has the pages of at most 8 bits a sample. These are the others: integers of more bits or with a sign, floats,
samples in planes, compressions that Pillow's libtiff lacks.
"""

import io
import logging
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import COMPRESSION as COMPRESSIONS
from tifffile import PHOTOMETRIC as PHOTOMETRICS
from tifffile import TiffFile, TiffPage

from ....models.states import FailureKind
from ..images import ImageFailure, one_line, too_many_pixels
from . import tiff_directory as tags
from .segment_sizes import stated_size
from .tiff_directory import Directory

logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # what it would say ends as an ImageFailure

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {_RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _CIELAB: 3, _MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1}
"""How many samples the colour of a pixel has. Those after them are extra."""

_PACKED = {5, 8, 32946, 50013, 32773, 34925, 34926, 50000}
"""LZW, Deflate, PackBits, LZMA, Zstandard: their decoders stop at the size that they are told."""
_FAX = {2, 3, 4}
_JPEG = {6, 7, 33007, 34892}
_APERIO_YCBCR = 33003
_JPEG_2000 = {33003, 33004, 33005, 34712}
_PICTURES = _JPEG | _JPEG_2000 | {34887, 34927, 34933, 50001, 50002, 52546}
"""And LERC, WebP, PNG, JPEG XL: each strip or tile says by itself how large it is."""
_PREDICTORS = {1, 2, 3, 34892, 34893, 34894, 34895}

_NATIVE = "<" if sys.byteorder == "little" else ">"
_UNSIGNED, _COMPLEX_INTEGER, _COMPLEX = 1, 5, 6
_ASSOCIATED_ALPHA = 1

_BYTES_PER_TAG_BYTE = 20  # tuples of Python's integers
_HEADER_BYTES = 1 << 17
"""Where a strip or tile that is a picture says its size, at the latest."""
_BYTES_PER_PAGE = 4 * 1024**2
_DECODER_BYTES_PER_SAMPLE = 16  # OpenJPEG's and libjxl's 4 bytes of each, several times


class SampledPage:
    """A page whose samples NumPy has. For one thread."""

    def __init__(self, data: bytes, directory: Directory, max_pixels: int) -> None:
        """Args:
        data: the whole file.
        directory: of the page.
        max_pixels: width × height above which nothing is decoded.

        Raises:
            ImageFailure: TRUNCATED, TOO_LARGE or UNSUPPORTED.
        """
        try:
            self._inspect(data, directory, max_pixels)
        except ImageFailure:
            raise
        except Exception as error:  # numbers that tifffile took for others
            raise _damaged_header(error) from error

    def _inspect(self, data: bytes, directory: Directory, max_pixels: int) -> None:
        self._data = data
        self._directory = directory
        self._max_pixels = max_pixels
        self._page = page = _parse(directory)
        if page.compression == 1:  # as libtiff has it: some programs write it beside values that are as they are
            page.predictor = 1
        width, height = self._page.imagewidth, self._page.imagelength
        if width < 1 or height < 1:
            raise ImageFailure(FailureKind.TRUNCATED, "The TIFF page has no width or no height.")
        self._tile = (self._page.tilewidth, self._page.tilelength) if self._page.is_tiled else (width, self._rows())
        if min(self._tile) < 1:
            raise ImageFailure(FailureKind.TRUNCATED, "The TIFF page has tiles or strips of no size.")
        if max(width * height, math.prod(self._tile)) > max_pixels:
            raise too_many_pixels(max_pixels)
        self._photometric = self._find_photometric()
        self._check()
        self._turn = directory.number(tags.ORIENTATION, 1)
        self.size = (height, width) if self._turn in range(5, 9) else (width, height)
        """As it is shown, after its Orientation."""
        self._values: NDArray[Any] | None = None

    @property
    def is_deep(self) -> bool:
        """Whether its values are scaled: grey of more than 8 bits, and whatever is signed, float or of 32 bits."""
        if self._photometric in (_PALETTE, _CMYK, _YCBCR, _CIELAB):
            return False
        limit = 8 if self._colours == 1 else 16
        return self._page.sampleformat != _UNSIGNED or self._bits > limit

    @property
    def bytes_needed(self) -> int:
        """An upper bound of the memory that making the picture takes besides the file's content."""
        page = self._page
        itemsize = np.dtype(page.dtype).itemsize
        pixels = page.imagewidth * page.imagelength
        samples = page.samplesperpixel if page.planarconfig == 1 else 1
        segment = min(math.prod(self._tile), self._max_pixels) * samples * self._bytes_per_decoded(itemsize)
        shown = 7 if self.is_deep else self._kept * (itemsize + 1) + 4  # grey, where it is none, its copy, RGB
        tag_bytes = _BYTES_PER_TAG_BYTE * self._directory.value_bytes
        return pixels * self._kept * itemsize + max(segment, pixels * shown) + tag_bytes + _BYTES_PER_PAGE

    def _bytes_per_decoded(self, itemsize: int) -> int:
        """What decoding a strip or tile takes for each of its samples."""
        page = self._page
        if page.compression in _PICTURES:
            return 2 * itemsize + _DECODER_BYTES_PER_SAMPLE
        copies = 0 if page.compression == 1 else 2
        is_as_stored = page.parent.byteorder == _NATIVE and self._bits == 8 * itemsize
        return itemsize * (copies + (not is_as_stored) + (page.fillorder == 2))

    def load(self) -> None:
        """Decode the samples.

        Raises:
            ImageFailure: TRUNCATED, or TOO_LARGE.
        """
        page = self._page
        try:
            values = np.zeros((page.imagelength, page.imagewidth, self._kept), page.dtype)
            for plane, top, left, segment in self._segments():
                rows, columns = values.shape[0] - top, values.shape[1] - left
                part = segment[0, :rows, :columns, : self._kept]
                if page.planarconfig == 1:
                    values[top : top + part.shape[0], left : left + part.shape[1]] = part
                else:
                    values[top : top + part.shape[0], left : left + part.shape[1], plane] = part[..., 0]
        except MemoryError as error:
            raise ImageFailure(FailureKind.TOO_LARGE, "The image did not fit into memory.") from error
        except Exception as error:  # codecs raise nearly anything on bad bytes
            raise ImageFailure(
                FailureKind.TRUNCATED, f"The TIFF data is cut short or damaged ({one_line(error)})."
            ) from error
        self._values = _turned(values, self._turn)

    def values(self) -> NDArray[Any]:
        """The loaded values of a deep page: height × width, or height × width × 3."""
        assert self._values is not None
        colours = self._values[..., : self._colours]
        return colours[..., 0] if self._colours == 1 else colours

    def grey_or_rgb(self, scale: Any) -> Image.Image:
        """The loaded page in RGB.

        Args:
            scale: turns the values of a deep page, as `values` has them, into 0 to 255.
        """
        if self.is_deep:
            values = self.values()
            grey = scale(values)
            if self._photometric == _MIN_IS_WHITE:
                np.subtract(255, grey, out=grey)
                if values.dtype.kind == "f":
                    grey[np.isnan(values)] = 0
            return Image.fromarray(grey).convert("RGB")
        assert self._values is not None
        if self._photometric == _PALETTE:
            return Image.fromarray(self._palette()[self._values[..., 0]])
        return self._eight_bits(self._values)

    def _eight_bits(self, values: NDArray[Any]) -> Image.Image:
        """RGB of whole numbers, of which the upper 8 bits count."""
        if self._bits > 8:
            bytes_ = (values >> (self._bits - 8)).astype(np.uint8)
        elif self._bits < 8:
            top = (1 << self._bits) - 1
            bytes_ = np.rint(values * (255 / top)).astype(np.uint8)
        else:
            bytes_ = values.astype(np.uint8, copy=False)
        if self._photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK):
            grey = bytes_[..., 0]
            return Image.fromarray(255 - grey if self._photometric == _MIN_IS_WHITE else grey).convert("RGB")
        if self._photometric == _CMYK:
            return Image.fromarray(bytes_, "CMYK").convert("RGB")
        if self._photometric == _YCBCR and not self._decoder_makes_rgb():
            return Image.fromarray(bytes_, "YCbCr").convert("RGB")
        if self._kept == 4:
            height, width, _ = bytes_.shape
            # As Pillow has it: colours that were multiplied with their alpha are divided by it.
            return Image.frombuffer("RGBA", (width, height), bytes_.tobytes(), "raw", "RGBa", 0, 1).convert("RGB")
        return Image.fromarray(np.ascontiguousarray(bytes_[..., :3]))

    def _palette(self) -> NDArray[np.uint8]:
        """(colours, 3), of which the upper 8 bits count."""
        colours = np.array(self._directory.numbers(tags.COLOR_MAP), np.uint32) >> 8
        return colours.astype(np.uint8).reshape(3, -1).T

    def _segments(self) -> Iterator[tuple[int, int, int, NDArray[Any]]]:
        """Plane, top, left and samples (depth × rows × columns × samples) of each strip or tile that is needed."""
        page = self._page
        width, height = self._tile
        count = math.ceil(page.imagewidth / width) * math.ceil(page.imagelength / height)
        planes = 1 if page.planarconfig == 1 else self._kept
        jpeg = {"jpegtables": page.jpegtables, "jpegheader": None} if page.compression in _JPEG else {}
        if len(page.dataoffsets) < planes * count:
            raise ValueError(f"{len(page.dataoffsets)} of {planes * count} strips or tiles")
        for index in range(planes * count):
            segment = self._segment(index)
            if segment is None:
                continue
            decoded, (plane, _, top, left, _), _ = page.decode(segment, index, **jpeg)
            if decoded is None:
                continue
            if page.compression in _PICTURES and not np.can_cast(decoded.dtype, np.dtype(page.dtype)):
                raise ValueError(f"a strip or tile has samples of {decoded.dtype}, its page of {page.dtype}")
            yield plane, top, left, decoded

    def _segment(self, index: int) -> bytes | memoryview | None:
        """The bytes of a strip or tile; None of a tile that a sparse file leaves out."""
        page = self._page
        start = page.dataoffsets[index]
        size = page.databytecounts[index] if index < len(page.databytecounts) else 0
        if not start and not size and page.is_tiled:
            return None
        if page.compression == 1:  # some writers say a wrong number of bytes, and none is needed
            row = self._tile[0] * (page.samplesperpixel if page.planarconfig == 1 else 1) * self._bits
            size = self._tile[1] * math.ceil(row / 8)
        segment = memoryview(self._data)[start : start + size]
        if not segment:
            raise ValueError("a strip or tile lies beyond the end of the file")
        if page.compression not in _PICTURES:
            return segment
        self._check_size(bytes(segment[:_HEADER_BYTES]))
        return bytes(segment)

    def _check_size(self, segment: bytes) -> None:
        """Refuse what would be decoded to more than a strip or tile."""
        size = stated_size(segment)
        width, height = self._tile
        if size is None or size[0] > width + 16 or size[1] > height + 16:
            raise ValueError("a strip or tile is of another size than its page says")

    def _rows(self) -> int:
        return int(self._page.rowsperstrip) or 1

    @property
    def _bits(self) -> int:
        return int(self._page.bitspersample)

    @property
    def _colours(self) -> int:
        return _COLOURS[self._photometric]

    @property
    def _kept(self) -> int:
        """How many samples of a pixel are needed: its colours, and an alpha that they were multiplied with."""
        extra = self._directory.numbers(tags.EXTRA_SAMPLES)
        has_alpha = self._photometric == _RGB and extra[:1] == (_ASSOCIATED_ALPHA,) and not self.is_deep
        return self._colours + (has_alpha and self._page.samplesperpixel > 3)

    def _find_photometric(self) -> int:
        """PhotometricInterpretation, and without it what libtiff takes."""
        if self._page.compression == _APERIO_YCBCR:  # its files say RGB
            return _YCBCR
        if tags.PHOTOMETRIC in self._directory.entries or self._page.compression == 6:
            return int(self._page.photometric)
        if self._page.compression in _FAX:
            return _MIN_IS_WHITE
        return _RGB if self._page.samplesperpixel >= 3 else _MIN_IS_BLACK

    def _decoder_makes_rgb(self) -> bool:
        """Whether the codec turned the colours into RGB: all do but JPEG 2000."""
        return self._page.compression in _JPEG | {34927, 34933, 50001, 50002, 52546}

    def _check(self) -> None:
        """Refuse by name what is not read.

        Raises:
            ImageFailure: UNSUPPORTED.
        """
        for name in self._unread():
            raise ImageFailure(FailureKind.UNSUPPORTED, f"The TIFF page has {name}, which is not read.")
        if self._page.samplesperpixel < self._colours:
            raise ImageFailure(FailureKind.TRUNCATED, "The TIFF page has fewer samples than its colours need.")
        if self._photometric == _PALETTE and len(self._directory.numbers(tags.COLOR_MAP)) != 3 << self._bits:
            raise ImageFailure(FailureKind.TRUNCATED, "The TIFF page's palette is cut short or damaged.")

    def _unread(self) -> Iterator[str]:
        yield from self._unread_compression()
        yield from self._unread_samples()
        yield from self._unread_colours()

    def _unread_compression(self) -> Iterator[str]:
        page = self._page
        if page.compression not in _PACKED | _FAX | _PICTURES | {1}:
            yield f"the compression {_name(COMPRESSIONS, page.compression)}"
        if page.compression == 34887 and self._directory.numbers(tags.LERC_PARAMETERS)[1:2] not in ((), (0,)):
            yield "the compression LERC with Deflate or Zstandard"
        if page.predictor not in _PREDICTORS:
            yield f"the predictor {_plain(page.predictor)}"

    def _unread_samples(self) -> Iterator[str]:
        page = self._page
        formats = set(self._directory.numbers(tags.SAMPLE_FORMAT, (1,)))
        bits = set(self._directory.numbers(tags.BITS, (1,)))
        if len(formats) > 1 or not isinstance(page.bitspersample, int):
            yield f"samples of several kinds ({sorted(bits)} bits, formats {sorted(formats)})"
        if page.sampleformat in (_COMPLEX_INTEGER, _COMPLEX):
            yield f"complex samples of {page.bitspersample} bits"
        if page.dtype is None:
            yield f"samples of the format {_plain(page.sampleformat)} with {page.bitspersample} bits"

    def _unread_colours(self) -> Iterator[str]:
        page, colours = self._page, self._photometric
        if colours not in _COLOURS:
            yield f"the colours {_name(PHOTOMETRICS, colours)}"
        if colours == _CMYK and self._directory.number(tags.INK_SET, 1) != 1:
            yield "inks other than CMYK"
        if colours == _YCBCR and page.is_subsampled and page.compression not in _JPEG:
            yield "YCbCr of fewer colours than pixels, without JPEG"
        if colours in (_CMYK, _YCBCR) and page.sampleformat != _UNSIGNED:
            yield f"{_name(PHOTOMETRICS, colours)} of the sample format {_plain(page.sampleformat)}"
        if colours == _CIELAB:
            yield f"CIELAB of {page.bitspersample} bits, or in planes"


def _parse(directory: Directory) -> TiffPage:
    try:
        with TiffFile(io.BytesIO(directory.alone())) as file:
            page = file.pages.first
            assert isinstance(page, TiffPage)
            return page
    except Exception as error:
        raise _damaged_header(error) from error


def _damaged_header(error: Exception) -> ImageFailure:
    return ImageFailure(
        FailureKind.TRUNCATED,
        f"The file begins as TIFF but its header is cut short or damaged ({one_line(error)}).",
    )


def _turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Values with the first row at the top and the first column at the left: TIFF 6.0, p. 36."""
    if orientation in range(5, 9):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _name(names: Any, number: int) -> str:
    try:
        return f"{names(number).name} ({int(number)})"
    except ValueError:
        return str(int(number))


def _plain(value: Any) -> str:
    return getattr(value, "name", None) or str(value)
