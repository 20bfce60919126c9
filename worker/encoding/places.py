"""Where a job's files are: below a folder. Nothing outside of it is ever read."""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from ...models.settings import Settings
from ...models.sources.objects.urls import is_url
from ...models.states import FailureKind
from .images import ImageFailure, readable_bytes

_GONE = (errno.ENOENT, errno.ENOTDIR)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class FileVersion(NamedTuple):
    """A file's size in bytes, and the time of its last modification in nanoseconds since 1970, or another number
    that changes with its content."""

    size: int
    modified_ns: int


class Place(Protocol):
    """Files by their paths below a root, with `/` between their parts. Safe to use from several threads."""

    stamps_are_times: bool
    """Whether `modified_ns` is a time: then a file that was changed a moment ago may change again and keep it."""

    def version(self, path: str) -> FileVersion:
        """What tells whether a file has changed.

        Raises:
            ImageFailure: OUTSIDE_ROOT, MISSING or UNREADABLE.
        """

    def read(self, path: str, reserve: Callable[[int], None]) -> bytes:
        """A whole file that is not larger than the limit. `reserve` is called with its size before it is read.

        Raises:
            ImageFailure: OUTSIDE_ROOT, MISSING, UNREADABLE or TOO_LARGE.
            OSError: this process, not the file, is at fault: it has no file descriptor or memory left.
        """

    def open(self, path: str) -> BinaryIO:
        """A file of any size, to be read in parts. Raises what `read` raises."""

    def ahead(self, paths: Sequence[str]) -> AbstractContextManager["Place"]:
        """The same place, which may read these files before they are asked for while the block runs."""


class LocalFolder:
    """A folder of this machine."""

    stamps_are_times = True

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

    def read(self, path: str, reserve: Callable[[int], None]) -> bytes:
        try:
            with self._open(path) as file:
                size = self._check_size(os.fstat(file.fileno()).st_size)
                reserve(size)
                data = file.read(size + 1)
        except (OSError, ValueError) as error:
            raise reading_failure(error) from error
        if len(data) != size:
            raise ImageFailure(FailureKind.UNREADABLE, "The file changed while it was read.")
        return data

    def open(self, path: str) -> BinaryIO:
        try:
            return self._open(path)
        except (OSError, ValueError) as error:
            raise reading_failure(error) from error

    def ahead(self, paths: Sequence[str]) -> AbstractContextManager["Place"]:
        return nullcontext(self)  # the system reads ahead by itself

    def version(self, path: str) -> FileVersion:
        try:
            status = self._resolve(path).stat()
        except (OSError, ValueError) as error:
            raise reading_failure(error) from error
        return FileVersion(status.st_size, status.st_mtime_ns)

    def _open(self, path: str) -> BinaryIO:
        """A regular file. Never waits for a pipe or a device."""
        file = open(self._resolve(path), "rb", opener=self._opener)  # noqa: SIM115  (the caller closes it)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise ImageFailure(FailureKind.UNREADABLE, "The path is a pipe, socket or device, not a regular file.")
        return file

    def _opener(self, path: str, flags: int) -> int:
        # A resolved path has no link left: one that is there now was put there after the check. A FIFO without a
        # writer would block a plain open.
        return os.open(path, flags | os.O_NONBLOCK | (0 if self._follow_links else os.O_NOFOLLOW))

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

    def _check_size(self, size: int) -> int:
        if size > self._max_bytes:
            raise too_large(size, self._max_bytes)
        return size


def open_place(root: str, settings: Settings, follow_links: bool) -> Place:
    """The place that a job's root names, as this machine has it.

    Raises:
        UsageError: it is a URL whose driver is not installed here.
    """
    if is_url(root):
        from ...models.sources.objects.folder import ObjectFolder  # fsspec: only for who has an object store
        from .object_store import ObjectStore

        return ObjectStore(ObjectFolder(root, settings.source_seconds), settings.max_file_bytes)
    return LocalFolder(settings.local_path(root), follow_links, settings.max_file_bytes)


def too_large(size: int | None, limit: int) -> ImageFailure:
    much = "too many bytes" if size is None else readable_bytes(size)
    return ImageFailure(
        FailureKind.TOO_LARGE,
        f"The file has {much}; the limit is {readable_bytes(limit)} (SCANOMALY_MAX_FILE_BYTES).",
    )


def reading_failure(error: OSError | ValueError) -> Exception:
    """What is to be raised for an error of a file: a failure of the scan, or the error where this process is at
    fault."""
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
