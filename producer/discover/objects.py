"""Finds the scans below a URL, and tells what is not one, as `folders` does of a folder."""

from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from ...models.reports import REPORT_MARKERS
from ...models.sources.objects.answers import Object
from ...models.sources.objects.folder import ObjectFolder
from .folders import Entry, entry, ignore_reason
from .names import NameRules

_AHEAD = 1000
"""How many objects are looked at ahead, to see whether a folder is a report."""


class Objects:
    """The scans below a URL.

    Entries come in the order of `ObjectFolder.walk`.
    """

    is_remote = True

    def __init__(self, folder: ObjectFolder) -> None:
        """Take a URL's folder.

        Raises:
            UsageError: it is not there, or may not be read with these credentials.
            SourceError: its server cannot be reached.
        """
        self.name = folder.name
        self.root = folder.url
        """The URL that the scans' paths are relative to."""
        self.real_root = self.root
        self.folder = folder
        folder.check()

    def is_file(self) -> bool:
        """Whether the URL names one object, such as an archive, and not a folder: `folder.split()` tells where."""
        return self.folder.is_file()

    def open(self, path: str) -> BinaryIO:
        """An object below the URL. Raises OSError."""
        return self.folder.open(path)

    def has(self, path: str) -> bool:
        """Whether there is an object below the URL: a request. Raises OSError."""
        return _is_there(self.folder, path)

    def walk(self) -> Iterator[Entry]:
        """Look again, and yield what is there; no path twice.

        Raises:
            OSError: the server cannot be asked.
        """
        told = ""
        objects = _Ahead(self.folder.walk())
        reports = _Reports(self.folder, objects)
        rules = NameRules(self.root)
        for item in objects:
            found = _entry_of(item, rules) or reports.entry(item.path) or _by_name(item.path)
            if found[0] == item.path:
                yield found
            elif found[0] != told:  # a folder, which is told once
                told = found[0]
                yield found


def _by_name(path: str) -> Entry:
    return entry(path, ignore_reason(path))


def _entry_of(item: Object, rules: NameRules) -> Entry | None:
    """What its name alone tells of an object: it cannot be read, or it or a folder above it is no scan."""
    if item.reason:
        return entry(item.path, item.reason)
    found = rules.path_reason(item.path)
    return found and entry(*found)


class _Ahead(Iterator[Object]):
    """Objects, some of which can be looked at before they come."""

    def __init__(self, objects: Iterator[Object]) -> None:
        self._objects = objects
        self._ahead: deque[Object] = deque()

    def __next__(self) -> Object:
        return self._ahead.popleft() if self._ahead else next(self._objects)

    def look(self) -> Iterator[str]:
        """The paths of the following objects, `_AHEAD` at most."""
        yield from (item.path for item in self._ahead)
        while len(self._ahead) < _AHEAD and (item := next(self._objects, None)):
            self._ahead.append(item)
            yield item.path

    def is_full(self) -> bool:
        """Whether more may follow than could be looked at."""
        return len(self._ahead) >= _AHEAD


class _Reports:
    """Tells which objects are in a report of an earlier job.

    Paths come folder by folder, so a folder is judged when its first object comes: by what follows it, and only
    where that is much by a question to the server.
    """

    def __init__(self, folder: ObjectFolder, ahead: _Ahead) -> None:
        self._folder = folder
        self._ahead = ahead
        self._above: list[tuple[str, bool]] = []

    def entry(self, path: str) -> Entry | None:
        """The report that a path is in, or None."""
        while self._above and not path.startswith(self._above[-1][0]):
            self._above.pop()
        if not self._above:
            self._above.append(("", self._is_report("", path)))
        while not self._above[-1][1]:
            before = self._above[-1][0]
            name, slash, _ = path.removeprefix(before).partition("/")
            if not slash:
                return None
            self._above.append((f"{before}{name}/", self._is_report(f"{before}{name}/", path)))
        return entry(self._above[-1][0].rstrip("/") or ".", "a report of an earlier job")

    def _is_report(self, before: str, path: str) -> bool:
        wanted = {before + name for name in REPORT_MARKERS} - {path}
        for following in self._ahead.look():
            if not following.startswith(before):
                return False
            wanted.discard(following)
            if not wanted:
                return True
        return self._ahead.is_full() and all(_is_there(self._folder, marker) for marker in sorted(wanted))


def _is_there(folder: ObjectFolder, path: str) -> bool:
    try:
        folder.version(path)
    except (FileNotFoundError, IsADirectoryError):
        return False
    return True


class OneObject:
    """A single object, such as an archive, below the URL of its folder."""

    is_remote = True

    def __init__(self, folder: ObjectFolder) -> None:
        """Take an object's URL. Raises UsageError: it is a bucket's or a host's."""
        self.name = folder.name
        self._folder, self._path = folder.split()
        self.root = self.real_root = self._folder.url

    def walk(self) -> Iterator[Entry]:
        yield _by_name(self._path)

    def open(self, path: str) -> BinaryIO:
        """The object. Raises OSError."""
        return self._folder.open(path)

    def has(self, path: str) -> bool:
        """Whether there is such an object beside it. Raises OSError."""
        return _is_there(self._folder, path)
