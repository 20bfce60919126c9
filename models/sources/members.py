"""What zips and tars have in common: the names in them, what is refused, and how a name is found again."""

import io
import re
import threading
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, cast

_MOST_NAME_CHARACTERS = 4096
_SHOWN_CHARACTERS = 200
_HEADERS_PER_MEMBER = 4
_BUFFER_BYTES = 8192

RATIO_FREE_BYTES = 1024**2
"""A member of no more bytes than this may be packed as tightly as it likes: it does no harm."""

_LEADS_OUT = re.compile(r"[\\/]|[A-Za-z]:|(?:.*[\\/])?\.\.(?:[\\/]|\Z)", re.DOTALL)
"""An absolute path, a drive's letter or a `..`, also where `\\` would be taken for a separator."""
_TO_BE_TIDIED = re.compile(r"\./|.*/(?:/|\./|\.\Z)|\.\Z", re.DOTALL)


class ArchiveError(Exception):
    """An archive, or something in it, cannot be used.

    `detail` is a sentence for people. It never quotes what is in the archive, not even a name.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ArchiveDamagedError(ArchiveError):
    """The archive, or one of its members, is cut short, contradicts itself or cannot be unpacked."""


class MemberMissingError(ArchiveError):
    """The archive has no member of that name."""

    def __init__(self, detail: str = "The archive does not hold the file any more.") -> None:
        super().__init__(detail)


class MemberTooLargeError(ArchiveError):
    """The member has more bytes than may be read."""


@dataclass(frozen=True)
class Limits:
    """What is too much for an archive. All sizes are of what is unpacked, as the archive states them."""

    member_bytes: int
    """Of one member."""
    members: int = 1_000_000
    """How many there may be, those that are ignored included."""
    total_bytes: int = 10 * 1024**4
    """Of all members together."""
    ratio: int = 1100
    """How often a member may be as large as what it is packed in. Deflate, which zip and gzip use, cannot do better
    than 1032, and does so for a volume of zeros: nothing honest that it packed is refused. LZMA reaches 7,000
    and bzip2 a million."""


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    """Its path in the archive, with `/` between its parts and without `./`."""
    size: int
    """In bytes, unpacked, as the archive states it."""
    reason: str | None
    """Why it is ignored, or None for a regular file that can be read."""


class Tally:
    """Counts what is listed, against the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._members = 0
        self._headers = 0
        self._bytes = 0

    def member(self, size: int) -> None:
        """Count a member.

        Raises:
            ArchiveError: it is one too many, or the bytes are.
        """
        self._members += 1
        if self._members > self._limits.members:
            raise ArchiveError(f"The archive holds more than {self._limits.members} files.")
        self._count(size)

    def header(self, size: int) -> None:
        """Count what is there beside the members. Raises as `member` does."""
        self._headers += 1
        if self._headers > _HEADERS_PER_MEMBER * self._limits.members:
            raise ArchiveError("The archive holds too many headers.")
        self._count(size)

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limits.total_bytes:
            raise ArchiveError(f"The files of the archive have more than {self._limits.total_bytes} bytes.")


def checked_name(raw: str) -> tuple[str, str | None]:
    """A name as an archive has it → the member's path, and why it is ignored, or None.

    Args:
        raw: bytes that are not UTF-8 are in it as surrogates.

    Returns:
        The path is the empty one for the archive's own folder. That of an ignored member can be shown and stored.
    """
    reason = _name_reason(raw)
    if reason is not None:
        return _printable(raw), reason
    if _TO_BE_TIDIED.match(raw):
        raw = "/".join(part for part in raw.split("/") if part not in ("", "."))
    return raw, None


def _name_reason(raw: str) -> str | None:
    if "\0" in raw:
        return "its name holds a NUL"
    if not raw.isascii():
        try:
            raw.encode()
        except UnicodeEncodeError:
            return "its name is not valid UTF-8"
    if len(raw) > _MOST_NAME_CHARACTERS:
        return "its name is too long"
    if _LEADS_OUT.match(raw):
        return "its name leads out of the archive"
    return None


def _printable(raw: str) -> str:
    shown = raw if len(raw) <= _MOST_NAME_CHARACTERS else raw[:_SHOWN_CHARACTERS] + "…"
    return shown.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def as_file(stream: io.RawIOBase) -> BinaryIO:
    """A stream as a file that is read from the beginning, in small parts."""
    return cast(BinaryIO, io.BufferedReader(stream, _BUFFER_BYTES))


class Index:
    """Names → numbers, and columns of whole numbers. A million names take 200 MB and not a gigabyte.

    A name is known by its hash of 64 bits, whose key is this process's own: of a million names, two have the same
    once in 30 million archives. The second would be ignored as one that comes twice.
    """

    def __init__(self, types: str) -> None:
        """Args:
        types: the type codes of the columns, as `array` has them. The first column is the member's place: that
            tells a member that is seen again from another one of the same name.
        """
        self.columns: tuple[array[int], ...] = tuple(array(code) for code in types)
        self._numbers: dict[int, int] = {}
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, name: str, reason: str | None, *values: int) -> bool:
        """Take a member, unless the name was taken by another one.

        Returns:
            Whether the name is this member's.
        """
        number = self._numbers.setdefault(hash(name), len(self._numbers))
        if number < len(self.columns[0]):
            return self.columns[0][number] == values[0]
        for column, value in zip(self.columns, values, strict=True):
            column.append(value)
        if reason is not None:
            self._reasons[number] = reason
        return True

    def number(self, name: str) -> int | None:
        return self._numbers.get(hash(name))

    def reason(self, number: int) -> str | None:
        return self._reasons.get(number)

    def row(self, number: int) -> tuple[int, ...]:
        return tuple(column[number] for column in self.columns)

    def usable(self) -> list[bool]:
        """Of each member, whether it is not ignored."""
        return [number not in self._reasons for number in range(len(self))]


class WalkedArchive(ABC):
    """An archive whose members are found by walking along it: as far as is needed, and once.

    Safe to use from several threads.
    """

    _stops_early: bool
    """Whether what was walked is of use before the rest was."""

    def __init__(self, limits: Limits, types: str) -> None:
        self._limits = limits
        self._lock = threading.RLock()
        """For the file's position, and the walk."""
        self._index = Index(types)
        self._search: Iterator[Member] | None = None
        self._searched = False
        self._damage: tuple[type[ArchiveError], str] | None = None
        """What ended the walk. Not the error itself, which holds on to everything around it."""
        self._too_large = f"larger than the limit of {limits.member_bytes} bytes (SCANOMALY_MAX_FILE_BYTES)"

    def members(self) -> Iterator[Member]:
        """Look again, and yield what is there in the archive's order, without folders.

        Yields:
            Every member; of those with the same name the first counts, and the others are ignored. A member may be
            opened or read once it has come.

        Raises:
            ArchiveError: a limit is passed.
            ArchiveDamagedError: the archive cannot be read further. What came before can be used.
            OSError: its file cannot be read.
        """
        return self._walk()

    def has(self, name: str) -> bool:
        """Whether there is a member of that name, ignored or not.

        Raises:
            ArchiveError: nothing of the archive can be read.
            OSError: its file cannot be read.
        """
        with self._lock:
            found = self._number(name) is not None
            if not (self._stops_early and len(self._index)):
                self._check_walk()
            return found

    def read(self, name: str, reserve: Callable[[int], None] = lambda size: None) -> bytes:
        """Unpack a whole member, to no more bytes than the archive states.

        Args:
            name: as `members` tells it.
            reserve: called with its size before any of it is read, without holding up other threads; what it raises
                ends the reading.

        Raises:
            MemberMissingError: there is none.
            MemberTooLargeError: it has more bytes than `Limits.member_bytes`.
            ArchiveDamagedError: it cannot be unpacked, or is ignored for another reason.
            OSError: the archive's file cannot be read.
        """
        number, size = self._usable(name)
        reserve(size)
        return self._read(number, name)

    def open(self, name: str) -> BinaryIO:
        """A stream of a member's bytes, to read its beginning: what is read is not checked. Raises as `read`."""
        return as_file(self._open(self._usable(name)[0], name))

    def close(self) -> None:
        """Give memory back at once. The file stays open."""
        with self._lock:
            self._search = None  # which holds the archive, as the archive does it

    @abstractmethod
    def _walk(self) -> Iterator[Member]:
        """Yield the members from the beginning, and add them to the index."""

    @abstractmethod
    def _size(self, number: int) -> int: ...

    @abstractmethod
    def _read(self, number: int, name: str) -> bytes: ...

    @abstractmethod
    def _open(self, number: int, name: str) -> io.RawIOBase: ...

    def _usable(self, name: str) -> tuple[int, int]:
        """The number and the size of a member that can be read."""
        with self._lock:
            number = self._number(name)
            if number is None or not self._stops_early:
                self._check_walk()
            if number is None:
                raise MemberMissingError
            reason = self._index.reason(number)
            if reason is None:
                return number, self._size(number)
        if reason == self._too_large:
            raise MemberTooLargeError(f"The file in the archive is {reason}.")
        raise ArchiveDamagedError(f"The file in the archive cannot be read: {reason}.")

    def _number(self, name: str) -> int | None:
        number = self._index.number(name)
        if number is None and not self._searched:
            self._walk_to(name)
            number = self._index.number(name)
        return number

    def _walk_to(self, name: str) -> None:
        self._search = self._search or self._walk()
        try:
            for member in self._search:
                if self._stops_early and member.name == name:
                    return
        except ArchiveError as error:
            self._damage = type(error), error.detail
        except BaseException:
            self._search = None  # the walk is over, but not at its end
            raise
        self._search = None
        self._searched = True

    def _check_walk(self) -> None:
        if self._damage is not None:
            kind, detail = self._damage
            raise kind(detail)
