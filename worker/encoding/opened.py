"""A file, or a member of an archive, that is read when something of it is wanted, and kept for its other frames."""

import hashlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from PIL import Image

from ...models.intensity import parse_intensity
from ...models.records import AUTO_INTENSITY
from ...models.sources.addresses import Address
from ...models.states import FailureKind
from .files import Found, ScanFiles
from .formats.content import Content, EmptySlice
from .formats.opening import open_content
from .images import ImageFailure
from .memory import Share, unbounded

_Made = TypeVar("_Made")

_MAX_RESIZED_PIXELS = 50_000_000  # `encoder.MAX_RESIZED_PIXELS`: importing it would load torch
_UNSURE_NS = 2_000_000_000
"""A file that was changed so shortly before it is read may change again and keep its time: some file systems count
in twos of seconds."""


class OpenedFile:
    """What scans of one file share. For one thread; all that it holds is reserved before.

    A file that cannot be read or opened is tried once: its failure is that of all its frames, and what was reserved
    for it is given back. Want of room, a NoRoomError, is no failure.
    """

    def __init__(self, files: ScanFiles, intensity: str, max_pixels: int, share: Share) -> None:
        self._files = files
        self._intensity = intensity
        self._max_pixels = max_pixels
        self._share = share
        self._failed: tuple[FailureKind, str] | None = None
        self._data: bytes | None = None
        self._sha256 = ""
        self._content: Content | None = None
        self._largest = 0
        self.may_change = False
        """Whether the file was changed so shortly before that its time may not tell when it changes again."""

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._data or b"")

    @property
    def format(self) -> str:
        """Of the picture that was made last."""
        return self._content.format if self._content is not None else ""

    def digest(self, found: Found) -> str:
        """Of what the encoder would see: the same for the same frame of the same content, read in the same way.

        Raises:
            ImageFailure: the file cannot be read.
            NoRoomError: it needs more memory than is free.
        """
        self._read(found)
        frame = found.address.frame
        if frame is None and self._intensity == AUTO_INTENSITY:
            return self._sha256
        return hashlib.sha256(f"{self._sha256}\n{frame or ''}\n{self._intensity}".encode()).hexdigest()

    def picture(self, found: Found, encoder_size: tuple[int, int]) -> Image.Image:
        """The picture of a frame, with room for what an encoder that sees so many pixels makes of it.

        Raises:
            ImageFailure: it cannot be made.
            EmptySlice: there is nothing to see in it.
            NoRoomError: it needs more memory than is free.
        """

        def announce(size: tuple[int, int], need: int) -> None:
            need += _resizing_bytes(size, encoder_size)
            if need > self._largest:  # a picture takes the place of the one before
                self._share.reserve(need - self._largest)
                self._largest = need

        data, frame = self._read(found), found.address.frame
        if self._content is None:
            intensity = parse_intensity(self._intensity)
            has_frames = frame is not None
            self._content = self._try_once(
                lambda: open_content(data, intensity, self._max_pixels, self._share.reserve, has_frames)
            )
        return self._content.picture(frame, announce)

    def _read(self, found: Found) -> bytes:
        if self._data is None:
            self.may_change = (
                self._files.stamps_are_times and found.version.modified_ns + _UNSURE_NS >= time.time_ns()
            )
            self._data = self._try_once(lambda: self._files.read(found, self._share.reserve))
            self._sha256 = hashlib.sha256(self._data).hexdigest()
        return self._data

    def _try_once(self, step: Callable[[], _Made]) -> _Made:
        """What a step makes; or its failure, also when it is asked for again."""
        if self._failed is None:
            used = self._share.used
            try:
                return step()
            except ImageFailure as failure:
                self._failed = failure.kind, failure.detail  # not itself: its traceback holds what was being made
            self._share.go_back(used)
        raise ImageFailure(*self._failed)


class Pictures:
    """The pictures of single scans, for people. Safe to use from several threads."""

    def __init__(self, files: ScanFiles, intensity: str, max_pixels: int) -> None:
        self._files = files
        self._intensity = intensity
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._last: tuple[Address, OpenedFile] | None = None

    def picture(self, path: str) -> Image.Image | None:
        """The picture of a scan; None where it cannot be made any more."""
        try:
            found = self._files.find(path)
            if found.address.frame is None:
                return self._open().picture(found, (0, 0))
            with self._lock:  # who asks for slices asks for one volume after the other
                return self._volume(found.address).picture(found, (0, 0))
        except (ImageFailure, EmptySlice):
            return None

    def _volume(self, address: Address) -> OpenedFile:
        whole = address._replace(frame=None)
        if self._last is None or self._last[0] != whole:
            self._last = None  # its memory is free before the next is read
            self._last = whole, self._open()
        return self._last[1]

    def _open(self) -> OpenedFile:
        return OpenedFile(self._files, self._intensity, self._max_pixels, unbounded())


def _resizing_bytes(size: tuple[int, int], encoder_size: tuple[int, int]) -> int:
    """The image with its short side at the encoder's size, in Pillow's 4 bytes a pixel, and a half-resized one."""
    short, long = sorted(size)
    return 8 * min(_MAX_RESIZED_PIXELS, long * max(encoder_size) ** 2 // short)
