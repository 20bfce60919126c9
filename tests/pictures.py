"""Pictures as a worker makes them."""

from collections.abc import Callable

from PIL import Image

from scanomaly.models.intensity import Intensity
from scanomaly.worker.encoding.formats.opening import open_content


def decode(
    data: bytes, max_pixels: int, announce: Callable[[tuple[int, int], int], None] = lambda size, need: None
) -> Image.Image:
    """The picture of a file of one. Raises ImageFailure."""
    return open_content(data, Intensity("auto"), max_pixels, lambda size: None, False).picture(None, announce)
