"""The scans of a source: what its files hold, be they pictures, volumes or archives.

A source is walked once. What was found is kept in a temporary file, for whoever goes through it again: to open the
files once more would cost as much, and there may be millions.
"""

import marshal
import tempfile
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import IO, BinaryIO, NamedTuple, Protocol

from ...models.sources.archives import Archive, archive_ending, open_archive
from ...models.sources.members import ArchiveError, Limits
from .folders import Entry
from .headers import look, look_unopened
from .names import NameRules
from .pseudonyms import Pseudonyms
from .slices import Slices

_PAGE = 1000


class Scan(NamedTuple):
    """A scan, or a file that is none."""

    path: str
    """Below the source's root, with `/` between its parts: an archive and a volume look like folders."""
    reason: str | None = None
    """Why it is ignored; None for a scan."""
    group: str | None = None
    """The patient's pseudonym."""
    volume: str | None = None
    """What the scan is a slice of."""
    file: str | None = None
    """The path of the file that it is a frame of; None for a file with one picture."""


class Files(Protocol):
    """Where files are."""

    name: str
    """What messages call it."""
    root: str
    """The absolute folder, or the URL, that the paths are relative to, as a person named it."""
    real_root: str
    """The same without any symbolic link: what workers open."""
    is_remote: bool
    """Whether to open a file is a request to a server."""

    def walk(self) -> Iterator[Entry]:
        """The files in a stable order, no path twice: (path, None), or (path, why it is ignored)."""

    def open(self, path: str) -> BinaryIO:
        """A file that `walk` yielded. Raises OSError."""

    def has(self, path: str) -> bool:
        """Whether there is a file, yielded or not. Raises OSError."""


class Scans:
    """The scans of a source."""

    def __init__(self, files: Files, slices: Slices, pseudonyms: Pseudonyms, limits: Limits) -> None:
        """Args:
        files: the source.
        slices: which slices of volumes are scans.
        pseudonyms: what names patients and series.
        limits: what is too much for an archive.
        """
        self.name = files.name
        self.root = files.root
        self.real_root = files.real_root
        self._files = files
        self._slices = slices
        self._pseudonyms = pseudonyms
        self._limits = limits
        self._rules = NameRules(files.root)
        self._kept: IO[bytes] | None = None

    def walk(self) -> Iterator[Scan]:
        """Yield what is there in a stable order; no path twice.

        Raises:
            SourceError, OSError: the source cannot be listed.
        """
        if self._kept is None:
            yield from self._walk_and_keep()
            return
        self._kept.seek(0)
        while page := marshal.load(self._kept):
            yield from map(Scan._make, page)

    def _walk_and_keep(self) -> Iterator[Scan]:
        file = tempfile.TemporaryFile()  # noqa: SIM115  (it is gone when this source is)
        weakref.finalize(self, file.close)
        found = self._walk()
        while page := list(islice(found, _PAGE)):
            marshal.dump([tuple(scan) for scan in page], file)
            yield from page
        marshal.dump([], file)
        self._kept = file

    def _walk(self) -> Iterator[Scan]:
        for path, reason in self._files.walk():
            if reason is not None:
                yield Scan(path, reason)
            elif archive_ending(path) is not None:
                yield from self._members(path)
            else:
                yield from self._look(path, partial(self._files.open, path), self._files.has)

    def _members(self, path: str) -> Iterator[Scan]:
        """What an archive holds. One that cannot be listed is ignored from there on."""
        try:
            with self._files.open(path) as file:
                archive = open_archive(file, path, self._limits)
                for name, _, reason in archive.members():
                    yield from self._member(path, archive, name, reason)
        except ArchiveError as error:
            yield Scan(path, f"an archive that cannot be read: {_clause(error.detail)}")
        except OSError as error:
            yield Scan(path, f"an archive that cannot be read: {error.strerror or type(error).__name__}")

    def _member(self, path: str, archive: Archive, name: str, reason: str | None) -> Iterator[Scan]:
        whole = f"{path}/{name}"
        if reason is None and (found := self._rules.path_reason(name)):
            reason = found[1]
        elif reason is None and archive_ending(name) is not None:
            reason = "an archive in an archive"
        if reason is not None:
            yield Scan(whole, reason)
            return
        beside = len(path) + 1
        yield from self._look(whole, partial(archive.open, name), lambda other: archive.has(other[beside:]))

    def _look(
        self, path: str, open_file: Callable[[], BinaryIO], is_there: Callable[[str], bool]
    ) -> Iterator[Scan]:
        try:
            found = look(
                path,
                open_file,
                self._slices,
                self._pseudonyms,
                is_there=is_there,
                is_remote=self._files.is_remote,
            )
        except (OSError, ArchiveError):
            found = look_unopened(path)
        if found.reason is not None or not found.frames:
            yield Scan(path, found.reason, found.group, found.volume)
            return
        volume = found.volume or path
        for frame in found.frames:
            yield Scan(f"{path}/{frame}", None, found.group or volume, volume, path)


def _clause(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")
