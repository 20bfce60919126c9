"""Where a job's files are: below a folder. Nothing outside of it is ever read."""

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from ...models.settings import Settings
from ...models.sources.beneath import OutsideRootError, RootFolder, RootLinkError
from ...models.sources.objects.urls import is_url
from ...models.states import FailureKind
from .images import ImageFailure, readable_bytes

_GONE = (errno.ENOENT, errno.ENOTDIR)
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_UNREADABLE = {
    errno.EISDIR: "The path is a folder, not a file.",
    errno.EACCES: "The worker has no permission to read the file.",
    errno.EPERM: "The worker has no permission to read the file.",
}
_LEADS_OUT = "A symbolic link leads out of the job's folder: submit with --follow-links to allow it."
_ROOT_IS_LINK = (
    "The job's folder, or one above it, is a symbolic link by now: submit the folder again, or name where this "
    "machine has it in SCANOMALY_ROOTS."
)


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
        root: the folder that paths start at, as it was resolved when it was submitted. It need not exist.
        follow_links: whether symbolic links may lead out of the root.
        max_bytes: size above which a file is not read.
        """
        self._root = RootFolder(root, follow_links)
        self._max_bytes = max_bytes

    def read(self, path: str, reserve: Callable[[int], None]) -> bytes:
        try:
            with self._root.open_file(path) as file:
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
            return self._root.open_file(path)
        except (OSError, ValueError) as error:
            raise reading_failure(error) from error

    def ahead(self, paths: Sequence[str]) -> AbstractContextManager["Place"]:
        return nullcontext(self)  # the system reads ahead by itself

    def version(self, path: str) -> FileVersion:
        try:
            status = self._root.status(path)
        except (OSError, ValueError) as error:
            raise reading_failure(error) from error
        return FileVersion(status.st_size, status.st_mtime_ns)

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
    if isinstance(error, OutsideRootError):
        return ImageFailure(
            FailureKind.OUTSIDE_ROOT, _ROOT_IS_LINK if isinstance(error, RootLinkError) else _LEADS_OUT
        )
    number = getattr(error, "errno", None)
    if number in _OURS:
        return error
    if number in _GONE:
        return ImageFailure(FailureKind.MISSING, "The file is no longer there.")
    reason = getattr(error, "strerror", None) or str(error)
    return ImageFailure(FailureKind.UNREADABLE, _UNREADABLE.get(number or 0, f"The file cannot be read: {reason}."))
