"""What all formats have in common."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from PIL import Image

Reserve: TypeAlias = Callable[[int], None]
"""Called with a number of bytes before they are allocated; what it raises ends the work."""
Announce: TypeAlias = Callable[[tuple[int, int], int], None]
"""Called with a picture's (width, height), and how many bytes its making takes at most, before it is made."""


class Content(Protocol):
    """A file's content, open. For one thread."""

    format: str
    """`JPEG`, `DICOM`, `NIfTI`, …"""

    def picture(self, frame: str | None, announce: Announce) -> Image.Image:
        """Make the picture of a frame.

        Args:
            frame: such as `axial/012`; None for the one picture of a file that has no frames.
            announce: told what it will take.

        Returns:
            The picture in mode RGB, 8 bits a channel, with square pixels.

        Raises:
            ImageFailure: it cannot be made.
            EmptySlice: there is nothing to see in it.
        """


class EmptySlice(Exception):  # noqa: N818  (it is a result of a scan, not a fault of the program)
    """A frame of several in which there is nothing to see: `detail` is one sentence that says by what rule."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
