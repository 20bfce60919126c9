"""Finds the files of a folder or of a list of paths, and tells which are none for Scanomaly.

A source can be walked several times, and keeps no paths: there may be millions.
"""

import hashlib
import heapq
import os
import stat
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, TypeAlias

from ...models.errors import SourceError, UsageError
from ...models.reports import is_report
from ...models.sources.beneath import RootFolder
from .names import HIDDEN, NameRules

Entry: TypeAlias = tuple[str, str | None]
"""A path below a source's root, with `/` between its parts, and why it is ignored, or None."""


class Folder:
    """A folder of files.

    Entries come in the order of their names' code points, folder by folder; then those of links to folders, so that
    no link takes the place of the folder that it leads to. A folder that was walked already is not walked again, so
    loops end.
    """

    is_remote = False

    def __init__(self, folder: Path, follow_links: bool = False, real_root: Path | None = None) -> None:
        """Take a folder.

        Args:
            folder: the folder. It may be a symbolic link itself.
            follow_links: whether symbolic links may lead out of it; else those that do are ignored.
            real_root: what the folder was resolved to; None to resolve it now.

        Raises:
            UsageError: the folder is not there, is a file, or cannot be read.
        """
        self.name = str(folder)
        self.root = os.path.abspath(folder)
        self._follow_links = follow_links
        try:
            self.real_root = os.path.realpath(self.root) if real_root is None else str(real_root)
            self._files = RootFolder(self.real_root, follow_links)
            os.close(self._files.open_folder(""))
        except (FileNotFoundError, ValueError):  # no file has a NUL in its name
            raise UsageError(f"{folder} is not there") from None
        except NotADirectoryError:
            what = "is a file: give its folder" if os.path.lexists(self.real_root) else "is not there"
            raise UsageError(f"{folder} {what}") from None
        except OSError as error:
            raise UsageError(f"{folder} cannot be read ({error.strerror})") from None

    def walk(self) -> Iterator[Entry]:
        """Look again, and yield what is there."""
        border = _Border(self.real_root, self._follow_links)
        return _Walk(self._files, Path(self.real_root), border, NameRules(self.root)).entries()

    def open(self, path: str) -> BinaryIO:
        """A regular file below the folder. Raises OSError."""
        return self._files.open_file(path)

    def has(self, path: str) -> bool:
        """Whether there is a file below the folder."""
        return _has(self._files, path)


class PathList:
    """Paths, one a line, in their order; relative ones start at the current folder.

    A path whose file is not there stays in the list: it will fail as `missing`, and nothing is lost. The paths are
    kept in a temporary file.
    """

    is_remote = False

    def __init__(
        self,
        lines: Iterable[str],
        follow_links: bool = False,
        name: str = "the list on standard input",
        real_root: Path | None = None,
    ) -> None:
        """Take a list.

        Args:
            lines: the paths.
            name: what messages call it.
            follow_links: whether symbolic links may lead out of the folder that the paths have in common; else
                those that do are ignored.
            real_root: what that folder was resolved to; None to resolve it now.

        Raises:
            SourceError: the list is empty.
        """
        self.name = name
        self._follow_links = follow_links
        self._file = _temporary_file(self)
        root = ""
        for path in _unique(os.path.abspath(line.rstrip("\r\n")) for line in lines if line.strip()):
            self._file.write(path + "\n")
            folder = _folder_of(path)
            if folder != root:
                root = os.path.commonpath([folder, root or folder])
        if not root:
            raise SourceError(f"{self.name} is empty: give one path a line")
        self.root = root
        self.real_root = os.path.realpath(root) if real_root is None else str(real_root)
        self._files = RootFolder(self.real_root, follow_links)

    def walk(self) -> Iterator[Entry]:
        """Yield what is in the list."""
        border = _Border(self.real_root, self._follow_links)
        begin = len(self.root.rstrip("/")) + 1
        self._file.seek(0)
        for line in self._file:
            path = line.removesuffix("\n")
            reason = ignore_reason(path) or border.reason(path)
            yield entry(path[begin:], reason)

    def open(self, path: str) -> BinaryIO:
        """A regular file of the list. Raises OSError."""
        return self._files.open_file(path)

    def has(self, path: str) -> bool:
        """Whether there is a file, in the list or not."""
        return _has(self._files, path)


def _has(files: RootFolder, path: str) -> bool:
    try:
        return stat.S_ISREG(files.status(path).st_mode)
    except (OSError, ValueError):  # it cannot be asked, or has a NUL in its name
        return False


def _temporary_file(owner: object) -> IO[str]:
    """A file for lines, which is gone when its owner is."""
    file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape", newline="\n")  # noqa: SIM115
    weakref.finalize(owner, file.close)
    return file


def _folder_of(path: str) -> str:
    """Of an absolute path; `Path` would be slow a million times."""
    return path[: path.rfind("/")] or "/"


def _unique(paths: Iterable[str]) -> Iterator[str]:
    """Each path once. A digest takes less room than a path."""
    seen: set[bytes] = set()
    for path in paths:
        digest = hashlib.blake2b(os.fsencode(path), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield path


class _Border:
    """Tells which links lead out of a folder."""

    def __init__(self, real_root: str, follow_links: bool) -> None:
        self._real_root = real_root
        self._follow_links = follow_links
        self._inside: dict[str, bool] = {}

    def reason(self, path: str) -> str | None:
        """Why an absolute path is ignored whose real path is outside, or None."""
        if self._follow_links or (self._is_inside(path) if Path(path).is_symlink() else self._has_folder(path)):
            return None
        return "a link that leads out of the folder: --follow-links takes it"

    def _has_folder(self, path: str) -> bool:
        """Whether the folder of a path is inside: asked once a folder, not once a file."""
        folder = _folder_of(path)
        if folder not in self._inside:
            self._inside[folder] = self._is_inside(folder)
        return self._inside[folder]

    def _is_inside(self, path: str) -> bool:
        try:
            return Path(os.path.realpath(path)).is_relative_to(self._real_root)
        except ValueError:  # a NUL in its name: no file has one, and it will fail as a scan
            return True
        except OSError:  # of a link that is changed meanwhile
            return False


class _Walk:
    """A walk through a folder: first through the folders below it, then through links to folders.

    Of two links the one whose target is nearer to the root of the file system comes first: the other may lead into
    it, and its names, which are labels, would be lost.
    """

    def __init__(self, files: RootFolder, real_root: Path, border: _Border, rules: NameRules) -> None:
        self._files = files
        self._root = real_root
        self._border = border
        self._rules = rules
        self._walked: set[tuple[int, int]] = set()
        self._links: list[tuple[int, str]] = []
        """A heap: how deep the target lies, the path."""

    def entries(self) -> Iterator[Entry]:
        yield from self._below("")
        while self._links:
            yield from self._below(heapq.heappop(self._links)[1])

    def _below(self, here: str) -> Iterator[Entry]:
        """Yield what is in the folder `here` and below it: a path below the root, or nothing for the root."""
        try:
            folder = self._files.open_folder(here)
            try:
                if not self._is_new(folder):
                    yield entry(here, "a folder that was walked already (symbolic link)")
                    return
                names, links, folders = _list(folder)
            finally:
                os.close(folder)
        except OSError as error:
            yield entry(here or ".", f"a folder that cannot be read ({error.strerror})")
            return
        if is_report(self._root / here):
            yield entry(here or ".", "a report of an earlier job")
            return
        before = here and f"{here}/"
        for name in names:
            path = before + name
            is_link = name in links
            # Only a link can lead out: a folder below one that stays inside is inside.
            if is_link and name[0] != "." and (reason := self._border.reason(str(self._root / path))):
                yield entry(path, reason)
            elif name in folders or (is_link and _is_folder(self._root / path)):
                yield from self._folder(path, name, is_link)
            else:
                yield entry(path, ignore_reason(path) or self._rules.file_reason(name))

    def _folder(self, path: str, name: str, is_link: bool) -> Iterator[Entry]:
        if reason := self._rules.folder_reason(name):
            yield entry(path, reason)
        elif is_link:
            depth = 0
            with suppress(OSError):  # of a link that is changed meanwhile
                depth = os.path.realpath(self._root / path).count("/")
            heapq.heappush(self._links, (depth, path))
        else:
            yield from self._below(path)

    def _is_new(self, folder: int) -> bool:
        status = os.fstat(folder)
        identity = (status.st_dev, status.st_ino)
        is_new = identity not in self._walked
        self._walked.add(identity)
        return is_new


def _list(folder: int) -> tuple[list[str], set[str], set[str]]:
    """The names in an open folder, sorted; and which of them are links, which are folders.

    Not the entries of `scandir`: a folder may hold a million, and they take several times as much memory.
    """
    names: list[str] = []
    links: set[str] = set()
    folders: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            if entry.is_symlink():
                links.add(entry.name)
            elif entry.is_dir():
                folders.add(entry.name)
    names.sort()
    return names, links, folders


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # it cannot be asked
        return False


def ignore_reason(path: str) -> str | None:
    """What the name alone has against a file; None where it has nothing."""
    if not path.isascii() and _printable(path) != path:
        return "its name is not valid UTF-8"
    name = path[path.rfind("/") + 1 :]
    return HIDDEN if name[:1] == "." else None


def entry(path: str, reason: str | None) -> Entry:
    """An entry for a file, or for one that is ignored."""
    return (path if reason is None else _printable(path)), reason


def _printable(path: str) -> str:
    """Bytes of a name that are not UTF-8 cannot go into a database or a report as they are."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
