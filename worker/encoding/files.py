"""A scan's path below its job's root → the file's bytes. Nothing outside of the root is ever read."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...models.states import FailureKind
from .images import ImageFailure, readable_bytes

_GONE = (errno.ENOENT, errno.ENOTDIR)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class FileVersion(NamedTuple):
    """A file's size in bytes, and the time of its last modification in nanoseconds since 1970."""

    size: int
    modified_ns: int


class ScanFiles:
    """The scans below one root.

    Safe to use from several threads.
    """

    def __init__(self, root: Path, follow_links: bool, max_bytes: int) -> None:
        """Args:
        root: the folder that paths start at. It may be a symbolic link itself, and need not exist.
        follow_links: whether symbolic links may lead out of the root.
        max_bytes: size above which a file is not read.
        """
        self._root = root
        self._real_root = Path(os.path.realpath(root))
        self._follow_links = follow_links
        self._max_bytes = max_bytes

    def read(self, path: str, reserve: Callable[[int], None] = lambda size: None) -> bytes:
        """Read a whole regular file. Never waits for a pipe or a device.

        Args:
            path: relative to the root, with `/` between its parts.
            reserve: called with the file's size before any of it is read; what it raises ends the reading.

        Raises:
            ImageFailure: OUTSIDE_ROOT, MISSING, UNREADABLE, EMPTY or TOO_LARGE.
            OSError: this process, not the file, is at fault: it has no file descriptor or memory left.
        """
        try:
            with open(self._resolve(path), "rb", opener=self._open) as file:
                size = self._check(os.fstat(file.fileno()))
                reserve(size)
                data = file.read(size + 1)
        except (OSError, ValueError) as error:
            raise _reading_failure(error) from error
        if len(data) != size:
            raise ImageFailure(FailureKind.UNREADABLE, "The file changed while it was read.")
        if not data:
            raise ImageFailure(FailureKind.EMPTY, "The file is empty.")
        return data

    def version(self, path: str) -> FileVersion:
        """What tells whether a file has changed.

        Args:
            path: relative to the root, with `/` between its parts.

        Raises:
            ImageFailure: OUTSIDE_ROOT, MISSING or UNREADABLE.
        """
        try:
            status = self._resolve(path).stat()
        except (OSError, ValueError) as error:
            raise _reading_failure(error) from error
        return FileVersion(status.st_size, status.st_mtime_ns)

    def _resolve(self, path: str) -> Path:
        if path.startswith("/") or ".." in path.split("/"):
            raise ImageFailure(FailureKind.OUTSIDE_ROOT, "The path leads out of the job's folder.")
        if self._follow_links:
            return self._root / path
        real = Path(os.path.realpath(self._root / path))
        if not real.is_relative_to(self._real_root):
            raise ImageFailure(
                FailureKind.OUTSIDE_ROOT,
                "A symbolic link leads out of the job's folder: submit with --follow-links to allow it.",
            )
        return real

    def _open(self, path: str, flags: int) -> int:
        # A resolved path has no link left: one that is there now was put there after the check. A FIFO without a
        # writer would block a plain open.
        return os.open(path, flags | os.O_NONBLOCK | (0 if self._follow_links else os.O_NOFOLLOW))

    def _check(self, status: os.stat_result) -> int:
        if not stat.S_ISREG(status.st_mode):
            raise ImageFailure(FailureKind.UNREADABLE, "The path is a pipe, socket or device, not a regular file.")
        if status.st_size > self._max_bytes:
            raise ImageFailure(
                FailureKind.TOO_LARGE,
                f"The file has {readable_bytes(status.st_size)}; "
                f"the limit is {readable_bytes(self._max_bytes)} (SCANOMALY_MAX_FILE_BYTES).",
            )
        return status.st_size


def _reading_failure(error: OSError | ValueError) -> Exception:
    number = getattr(error, "errno", None)
    if number in _OURS:
        return error
    if number in _GONE:
        return ImageFailure(FailureKind.MISSING, "The file is no longer there.")
    if number == errno.EISDIR:
        return ImageFailure(FailureKind.UNREADABLE, "The path is a folder, not a file.")
    if number in _FORBIDDEN:
        return ImageFailure(FailureKind.UNREADABLE, "The worker has no permission to read the file.")
    reason = getattr(error, "strerror", None) or str(error)
    return ImageFailure(FailureKind.UNREADABLE, f"The file cannot be read: {reason}.")
