"""What servers answer, as all drivers tell it, and what a driver is."""

import asyncio
import errno
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

from .failures import TryError, cut_short, failure
from .urls import path_reason

PAGE = 1000
"""Keys in one answer of a listing: the most that S3 and Google give."""
PIECE = 1024**2


class Object(NamedTuple):
    """What a listing tells of an object: its path below the URL, and why it cannot be read, or None.

    `size` in bytes and `stamp` are None where a listing does not tell them: index pages do not.
    """

    path: str
    size: int | None
    stamp: int | None
    reason: str | None = None


class Version(NamedTuple):
    """A size in bytes, -1 if the server tells none; and a number below 2**63 that is another one after a change.

    Of a server that tells neither an ETag nor a time, the stamp is another one each time.
    """

    size: int
    stamp: int


class Fetched(NamedTuple):
    """An object's bytes, and the version that they are of: one answer told both."""

    data: bytes
    version: Version


class Found(NamedTuple):
    """What a server tells of an object."""

    size: int | None
    tag: str | None
    """Another one when the object changed."""
    is_page: bool = False
    """A web server's page, which may be an index."""

    def version(self) -> Version:
        return Version(
            -1 if self.size is None else self.size, secrets.randbits(63) if self.tag is None else _stamp(self.tag)
        )

    def differs(self, other: "Found") -> bool:
        return self.size != other.size or (None not in (self.tag, other.tag) and self.tag != other.tag)


@dataclass
class Answer:
    """An answer whose body is still to come."""

    found: Found
    length: int | None
    """Of the body, in bytes."""
    ranged: bool
    """Whether the body is the range that was asked for; else the whole object."""
    body: Any
    """Has a coroutine `read(count)` that gives bytes, fewer than wanted or none at the end."""
    drop: Callable[[], None] = field(default=lambda: None)

    async def piece(self, count: int = PIECE) -> bytes:
        return bytes(await self.body.read(count))

    async def first(self, count: int) -> bytes:
        """So many bytes, or all that there are."""
        parts: list[bytes] = []
        size = 0
        while size < count and (part := await self.piece(min(PIECE, count - size))):
            parts.append(part)
            size += len(part)
        if size < count and self.length not in (None, size):
            raise cut_short(size, self.length)
        return b"".join(parts)

    async def whole(self) -> bytes:
        """Of a known length."""
        # A byte more than there should be, so that the driver sees the end, and keeps the connection.
        length = cast(int, self.length)
        data = await self.first(length + 1)
        if len(data) != length:
            raise cut_short(len(data), length)
        return data

    async def close(self) -> None:
        self.drop()


class Driver(Protocol):
    """Asks one kind of server. All coroutines run in `loop`, and raise what the driver raises.

    fsspec's drivers give the connections, the credentials of the environment and the signatures. Listing and
    reading go a step below their file-like calls, for those would hold a whole listing in memory, try again on
    their own, and forget what the server said.
    """

    loop: asyncio.AbstractEventLoop

    async def is_there(self) -> bool: ...

    async def page(self, token: str | None) -> tuple[list[Object], str | None]:
        """One page of the listing, and what asks for the following one."""
        ...

    async def find(self, path: str) -> Found:
        """Of the object at a path; `""` is the URL itself."""
        ...

    async def get(self, path: str, part: tuple[int, int] | None = None, same: Found | None = None) -> Answer:
        """Begin to read an object.

        Args:
            path: as of `find`.
            part: its first byte, and the one after its last; None for all of it.
            same: what was found before: a server may refuse another version.
        """
        ...


def listed_object(path: str, size: int | None, tag: str | None) -> Object:
    reason = path_reason(path)
    if reason is None:
        return Object(path, size, None if tag is None else _stamp(tag))
    shown = "".join(letter if path_reason(f"a{letter}a") is None else ascii(letter)[1:-1] for letter in path)
    return Object(shown, size, None, f"its name {reason}: it cannot be a path")


def _stamp(tag: str) -> int:
    return int.from_bytes(hashlib.blake2b(tag.encode("utf-8", "replace"), digest_size=8).digest()) >> 1


def range_header(part: tuple[int, int]) -> str:
    return f"bytes={part[0]}-{part[1] - 1}"


def whole_size(content_range: str | None) -> int | None:
    """`bytes 0-9/100` → 100."""
    match = re.fullmatch(r"bytes \d+-\d+/(\d+)", content_range or "")
    return int(match[1]) if match else None


async def is_object(finding: Awaitable[Found]) -> bool:
    try:
        await finding
    except Exception as error:
        failed = failure(error)
        if isinstance(failed, TryError) and isinstance(failed.error, FileNotFoundError):
            return False
        raise
    return True


def path_below(prefix: str, key: str, size: int) -> str:
    """A key's path below a prefix; "" for one that only stands for a folder."""
    return "" if key.endswith("/") and not size else key.removeprefix(prefix)


def unlike(following: str | None, token: str | None) -> str | None:
    if following is not None and following == token:
        raise TryError(errno.EIO, "the server's listing does not end")
    return following
