"""Archives that are read in place: zip, tar, and tars packed by gzip, bzip2 or xz.

Nothing is ever written to a disk, so a name cannot lead anywhere; and what can be claimed is bounded before it is
believed. Both wings read archives only through this module.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol, TypeAlias

from .members import (
    ArchiveDamagedError,
    ArchiveError,
    Limits,
    Member,
    MemberMissingError,
    MemberTooLargeError,
)
from .tars import TarArchive
from .zips import ZipArchive

__all__ = [
    "Archive",
    "ArchiveDamagedError",
    "ArchiveError",
    "Limits",
    "Member",
    "MemberMissingError",
    "MemberTooLargeError",
    "OpenArchives",
    "archive_ending",
    "open_archive",
]

_ENDING = re.compile(r"[^/](\.zip|\.tgz|\.tar(?:\.gz|\.bz2|\.xz)?)\Z", re.IGNORECASE)

Stamp: TypeAlias = tuple[int, int]
"""A file's size, and its time or another number that changes with its content."""


def archive_ending(name: str) -> str | None:
    """The ending that makes a file's name or path an archive's, in small letters, or None."""
    match = _ENDING.search(name)
    return None if match is None else match[1].lower()


class Archive(Protocol):
    """An open archive: see `WalkedArchive`. Safe to use from several threads."""

    def members(self) -> Iterator[Member]: ...

    def has(self, name: str) -> bool: ...

    def read(self, name: str, reserve: Callable[[int], None] = ...) -> bytes: ...

    def open(self, name: str) -> BinaryIO: ...

    def close(self) -> None: ...


def open_archive(file: BinaryIO, name: str, limits: Limits) -> Archive:
    """Open an archive.

    Args:
        file: any file that can seek. Nobody else may move its position; it stays the caller's to close, after the
            archive's last use.
        name: of the file. Its ending tells a zip from a tar.
        limits: what is too much.

    Raises:
        ArchiveError: it cannot be used.
        OSError: the file cannot be read.
        ValueError: the name is not an archive's.
    """
    ending = archive_ending(name)
    if ending is None:
        raise ValueError("not an archive by its ending")
    return ZipArchive(file, limits) if ending == ".zip" else TarArchive(file, limits)


class _Opened:
    """An archive that is open, or about to be."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.file: BinaryIO | None = None
        self.archive: Archive | None = None
        self.damage: tuple[type[ArchiveError], str] | None = None
        """Why it cannot be opened, as long as its file is the same."""
        self.users = 0
        self.is_dropped = False


class OpenArchives:
    """Archives, by the paths of their files; those used last stay open. Safe to use from several threads."""

    def __init__(self, open_file: Callable[[str], BinaryIO], limits: Limits, most: int = 4) -> None:
        """Args:
        open_file: opens the file of a path. What it raises goes through.
        limits: what is too much.
        most: how many stay open. More are open only while several threads read just as many.
        """
        self._open_file = open_file
        self._limits = limits
        self._most = most
        self._lock = threading.Lock()
        self._opened: OrderedDict[tuple[str, Stamp], _Opened] = OrderedDict()

    def has(self, path: str, stamp: Stamp, member: str) -> bool:
        """Whether an archive has a member, be it one that is ignored. Arguments and errors are those of `read`."""
        with self._use(path, stamp) as archive:
            return archive.has(member)

    def read(
        self, path: str, stamp: Stamp, member: str, reserve: Callable[[int], None] = lambda size: None
    ) -> bytes:
        """Read a member.

        Args:
            path: of the archive's file.
            stamp: of the file: with another one it is opened anew.
            member: as `Archive.members` tells it.
            reserve: called with its size before any of it is read; what it raises ends the reading. Other threads
                are not held up by it.

        Raises:
            MemberMissingError: there is none.
            MemberTooLargeError: it has more bytes than `Limits.member_bytes`.
            ArchiveDamagedError: it cannot be unpacked.
            ArchiveError: the archive cannot be used.
            OSError: the file cannot be read.
        """
        with self._use(path, stamp) as archive:
            return archive.read(member, reserve)

    def close(self) -> None:
        """Close the files: those in use when they no longer are."""
        with self._lock:
            for opened in self._opened.values():
                opened.is_dropped = True
            unused = [opened for opened in self._opened.values() if not opened.users]
            self._opened.clear()
        _close(unused)

    @contextmanager
    def _use(self, path: str, stamp: Stamp) -> Iterator[Archive]:
        key = (path, (stamp[0], stamp[1]))
        with self._lock:
            opened = self._opened.setdefault(key, _Opened())
            self._opened.move_to_end(key)
            opened.users += 1
        try:
            yield self._archive(opened, path)
        except BaseException as error:
            is_new = opened.archive is None and opened.damage is None
            if isinstance(error, OSError) or is_new:  # another try takes a fresh file
                with self._lock:
                    self._drop(key, opened)
            raise
        finally:
            _close(self._give_back(opened))

    def _archive(self, opened: _Opened, path: str) -> Archive:
        with opened.lock:
            if opened.damage is not None:
                kind, detail = opened.damage
                raise kind(detail)
            if opened.archive is None:
                if opened.file is None:
                    opened.file = self._open_file(path)
                try:
                    opened.archive = open_archive(opened.file, path, self._limits)
                except ArchiveError as error:
                    opened.damage = type(error), error.detail
                    opened.file.close()
                    opened.file = None
                    raise
            return opened.archive

    def _give_back(self, opened: _Opened) -> list[_Opened]:
        """The archives that are to be closed."""
        with self._lock:
            opened.users -= 1
            unused = [opened] if opened.is_dropped and not opened.users else []
            idle = [(key, other) for key, other in self._opened.items() if not other.users]
            for key, other in idle[: max(0, len(self._opened) - self._most)]:
                self._drop(key, other)
                unused.append(other)
            return unused

    def _drop(self, key: tuple[str, Stamp], opened: _Opened) -> None:
        opened.is_dropped = True
        if self._opened.get(key) is opened:
            del self._opened[key]


def _close(archives: list[_Opened]) -> None:
    for opened in archives:
        if opened.archive is not None:
            opened.archive.close()
        if opened.file is not None:
            opened.file.close()
