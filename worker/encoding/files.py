"""A scan's path below its job's root → the bytes of its file, or of its member of an archive."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import NamedTuple

from ...models.settings import Settings
from ...models.sources.addresses import Address, candidates, is_plain
from ...models.sources.archives import (
    ArchiveError,
    Limits,
    MemberMissingError,
    MemberTooLargeError,
    OpenArchives,
)
from ...models.states import FailureKind
from .images import ImageFailure
from .places import FileVersion, Place, open_place


class Found(NamedTuple):
    """Where a scan is, and the version of the file that holds it."""

    address: Address
    version: FileVersion


class ScanFiles:
    """The scans of one place. Safe to use from several threads."""

    def __init__(self, place: Place, max_bytes: int) -> None:
        """Args:
        place: where the files are.
        max_bytes: size above which a member of an archive is not read.
        """
        self._place = place
        self._archives = OpenArchives(place.open, Limits(member_bytes=max_bytes))
        self._versions: dict[str, FileVersion | ImageFailure] | None = None

    @contextmanager
    def ahead(self, paths: Sequence[str]) -> Iterator["ScanFiles"]:
        """The same scans, some of whose files may be read before they are asked for while the block runs."""
        with self._place.ahead([path for path in paths if is_plain(path)]) as place:
            files = copy(self)
            files._place = place
            yield files

    def asked_once(self) -> "ScanFiles":
        """The same scans, for one thread: it is asked once what is known of a file, were it that it is missing."""
        files = copy(self)
        files._versions = {}
        return files

    @property
    def stamps_are_times(self) -> bool:
        return self._place.stamps_are_times

    def find(self, path: str) -> Found:
        """Find out what a path means.

        Raises:
            ImageFailure: OUTSIDE_ROOT, MISSING, UNREADABLE or TRUNCATED (a damaged archive).
            OSError: this process is at fault: it has no file descriptor or memory left.
        """
        missing: ImageFailure | None = None
        for address in candidates(path):
            try:
                version = self._version(address.file)
                if address.member is None or self._has(address.file, version, address.member):
                    return Found(address, version)
            except ImageFailure as failure:
                if failure.kind is not FailureKind.MISSING:
                    raise
                missing = missing or failure
        raise missing or ImageFailure(FailureKind.MISSING, "The archive does not hold the file any more.")

    def _version(self, file: str) -> FileVersion:
        if self._versions is None:
            return self._place.version(file)
        if file not in self._versions:
            try:
                self._versions[file] = self._place.version(file)
            except ImageFailure as failure:
                self._versions[file] = failure
        version = self._versions[file]
        if isinstance(version, ImageFailure):
            raise version
        return version

    def read(self, found: Found, reserve: Callable[[int], None] = lambda size: None) -> bytes:
        """Read the whole of a file, or of a member of an archive.

        Args:
            found: what `find` returned.
            reserve: called with its size before any of it is read; what it raises ends the reading.

        Raises:
            ImageFailure: OUTSIDE_ROOT, MISSING, UNREADABLE, EMPTY, TOO_LARGE or TRUNCATED.
            OSError: this process, not the file, is at fault: it has no file descriptor or memory left.
        """
        data = self._read(found, reserve)
        if not data:
            raise ImageFailure(FailureKind.EMPTY, "The file is empty.")
        return data

    def _read(self, found: Found, reserve: Callable[[int], None]) -> bytes:
        file, member, _ = found.address
        if member is None:
            return self._place.read(file, reserve)
        try:
            return self._archives.read(file, found.version, member, reserve)
        except ArchiveError as error:
            raise _failure(error) from error

    def _has(self, file: str, version: FileVersion, member: str) -> bool:
        try:
            return self._archives.has(file, version, member)
        except ArchiveError as error:
            raise _failure(error) from error


def open_files(root: str, follow_links: bool, settings: Settings) -> ScanFiles:
    """The scans below a job's root: a folder, or a URL.

    Raises:
        UsageError: it is a URL whose driver is not installed here.
    """
    return ScanFiles(open_place(root, settings, follow_links), settings.max_file_bytes)


def _failure(error: ArchiveError) -> ImageFailure:
    kind = FailureKind.TRUNCATED
    if isinstance(error, MemberMissingError):
        kind = FailureKind.MISSING
    elif isinstance(error, MemberTooLargeError):
        kind = FailureKind.TOO_LARGE
    return ImageFailure(kind, error.detail)
