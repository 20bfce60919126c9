"""Files of one picture, or of several of which the first is read: JPEG, PNG, BMP, WebP and GIF."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....models.intensity import Intensity
from ....models.states import FailureKind
from ..images import (
    ImageFailure,
    Source,
    decoding_bytes,
    grey_parts,
    grey_to_rgb,
    is_deep_grey,
    load,
    open_image,
    own_scale,
    to_rgb,
    too_many_pixels,
)
from . import jpeg, png
from .content import Announce
from .intensity import SCALE_BYTES, make_scale
from .png import PngSource

_BYTES_PER_PICTURE = 4 * 1024**2


class PictureContent:
    """A file of one picture, open; for one thread."""

    def __init__(self, data: bytes, intensity: Intensity, max_pixels: int) -> None:
        """Args:
        data: the whole file, whatever it is.
        intensity: how grey of more than 8 bits becomes 8 bits.
        max_pixels: width × height above which a picture is not made.
        """
        self.format = "image"
        """The file's format once the picture was made: Pillow finds it out."""
        self._data = data
        self._intensity = intensity
        self._max_pixels = max_pixels
        self._has_own_scale = intensity.kind in ("auto", "minmax")

    def picture(self, frame: str | None, announce: Announce) -> Image.Image:
        """As `Content.picture` has it.

        Grey of more than 8 bits is scaled, by default from its own minimum and maximum to 0 and 255; a constant
        image is black. All else is as stored.

        Raises:
            ImageFailure: EMPTY, NOT_AN_IMAGE, TRUNCATED (cut short or damaged), UNSUPPORTED or TOO_LARGE.
        """
        if frame is not None:
            raise ImageFailure(FailureKind.MISSING, "The file has one picture, and no frames.")
        if self._data.startswith(png.SIGNATURE):
            rgb = self._png(announce)
        elif self._data.startswith(jpeg.SIGNATURE):
            rgb = self._jpeg(announce)
        else:
            rgb = self._pillows(Source(self._data), announce)
        self.format = str(rgb.format)
        return rgb

    def _png(self, announce: Announce) -> Image.Image:
        source = PngSource(self._data)
        if not png.is_grey_of_16_bits_with_alpha(source):
            return self._pillows(source, announce)
        size = open_image(source, self._max_pixels).size
        announce(size, self._deep_bytes(size, png.BYTES_PER_DEEP_PIXEL))
        return self._deep_picture(png.grey_of_16_bits(source), "PNG")

    def _jpeg(self, announce: Announce) -> Image.Image:
        frame = jpeg.read_frame(self._data)
        if frame is None or frame.is_for_pillow:
            return self._jpeg_of_8_bits(announce)
        if frame.unread:
            raise ImageFailure(FailureKind.UNSUPPORTED, f"The JPEG is {frame.unread}, which is not read.")
        width, height = frame.size
        if width * height > self._max_pixels:
            raise too_many_pixels(self._max_pixels)
        announce(frame.size, self._deep_bytes(frame.size, jpeg.BYTES_PER_DEEP_PIXEL))
        values = jpeg.decode_deep(self._data, frame)
        if values.ndim == 3 or frame.bits <= 8:
            picture = Image.fromarray(jpeg.upper_8_bits(values, frame)).convert("RGB")
            picture.format = "JPEG"
            return picture
        return self._deep_picture(values, "JPEG")

    def _jpeg_of_8_bits(self, announce: Announce) -> Image.Image:
        """As Pillow reads it: where metadata keep it from that, without them."""
        try:
            return self._pillows(Source(self._data), announce)
        except ImageFailure as failure:
            if failure.kind is not FailureKind.TRUNCATED:
                raise
            announce((1, 1), len(self._data) + _BYTES_PER_PICTURE)  # for the copy; the picture's own follows
            bare = jpeg.without_metadata(self._data)
            if bare is None or len(bare) == len(self._data):
                raise
        return self._pillows(Source(bare), announce, copied=len(bare))

    def _pillows(self, source: Source, announce: Announce, copied: int = 0) -> Image.Image:
        """The picture of what Pillow reads."""
        image = open_image(source, self._max_pixels)
        is_deep = is_deep_grey(image)
        scaling = SCALE_BYTES if is_deep and not self._has_own_scale else 0
        announce(image.size, decoding_bytes(image, len(self._data)) + scaling + copied)
        load(image, source)
        if is_deep:
            rgb = grey_to_rgb(image, self._scale(lambda: (part for _, part in grey_parts(image))))
        else:
            rgb = to_rgb(image)
        rgb.format = image.format  # which Pillow's own conversion forgets
        return rgb

    def _deep_picture(self, values: NDArray[Any], name: str) -> Image.Image:
        picture = Image.fromarray(self._scale(lambda: [values])(values)).convert("RGB")
        picture.format = name
        return picture

    def _deep_bytes(self, size: tuple[int, int], per_pixel: int) -> int:
        scaling = 0 if self._has_own_scale else SCALE_BYTES
        return size[0] * size[1] * per_pixel + len(self._data) + _BYTES_PER_PICTURE + scaling

    def _scale(self, chunks: Callable[[], Any]) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
        if self._has_own_scale:
            return own_scale(chunks())
        return make_scale(chunks, self._intensity, Intensity("minmax"))
