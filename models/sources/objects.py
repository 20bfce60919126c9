"""Scans in an object store or on a web server: `s3://`, `gs://`, `http://`, `https://`, by the drivers of fsspec.

The drivers give the connections, the credentials of the environment and the signatures. Listing and reading go a
step below their file-like calls, for those would hold a whole listing in memory, try again on their own, and forget
what the server said.

No error that a server caused holds a URL: a store may have redirected to a signed one. Its `strerror` is one line
for people.
"""

import asyncio
import codecs
import errno
import hashlib
import io
import logging
import os
import random
import re
import secrets
import tempfile
import urllib.request
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import IO, Any, BinaryIO, NamedTuple, Protocol, TypeVar, cast
from urllib.parse import quote, unquote, urljoin, urlsplit

import fsspec
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
)

from ..errors import SourceError, UsageError
from .urls import DRIVERS, TAKEN, is_url, local_folder

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "http": 'set FSSPEC_HTTP to {"headers": {"Authorization": "..."}}',
}

PAGE = 1000
"""Keys in one answer of a listing: the most that S3 and Google give."""
BLOCK = 512 * 1024
"""Bytes that an opened object is read by."""
AHEAD_BYTES = 64 * 1024**2
"""What is read ahead of a batch may take so many bytes, beside the batch's own memory."""

_CHECK_SECONDS = 15.0  # a person who mistyped a host waits for it
_PIECE = 1024**2
_MOST_REDIRECTS = 5
_DEEPEST = 32
_MOST_INDEX_BYTES = 64 * 1024**2

_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


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


class ObjectTooLargeError(OSError):
    """An object has more bytes than may be read: `size`, or None when the server does not tell how many."""

    def __init__(self, size: int | None) -> None:
        super().__init__(errno.EFBIG, "the object is too large")
        self.size = size


class ObjectFolder:
    """The objects below a URL, as if it were a folder.

    Safe to use from several threads, and after a fork: each process has a driver of its own, made when it first
    asks. Nothing here may be called from fsspec's own thread.

    Every method that asks the server raises FileNotFoundError, PermissionError, TimeoutError or another OSError.
    What may pass (no answer, a broken connection, a body cut short, 429, 5xx) is tried again before, with growing
    waits.
    """

    def __init__(self, url: str, seconds: float = 60.0, answer_seconds: float | None = None) -> None:
        """Take a URL; nothing is asked yet.

        Args:
            url: of a bucket, a folder in it, or an index page. Credentials are never in it.
            seconds: how long what may pass is tried again. The last try begins before they are over, and there are
                two tries at least. No wait between two is longer than a third of them.
            answer_seconds: how long one try waits for a connection, or for more bytes. By default a third of
                `seconds`, 20 at most.

        Raises:
            UsageError: the URL cannot be right, or its driver is not installed.
        """
        self._place = _parse(url)
        self.url = self._place.url
        """The URL, without a slash at its end."""
        self.name = self._place.url
        """What messages call it."""
        self._seconds = seconds
        self._answer_seconds = answer_seconds or min(20.0, seconds / 3)
        self._drivers: dict[int, _Driver] = {}
        _check_driver(self._place)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_drivers": {}}

    def check(self) -> None:
        """Ask the server whether something is there.

        Raises:
            UsageError: there is nothing, or it may not be read with these credentials.
            SourceError: the server cannot be reached.
        """
        try:
            there = self._try(lambda: self._run(self._driver.is_there()), min(self._seconds, _CHECK_SECONDS))
        except FileNotFoundError as error:
            raise UsageError(f"{self.name} is not there ({error.strerror})") from None
        except PermissionError as error:
            hint = _CREDENTIALS[self._place.driver]
            raise UsageError(f"{self.name} cannot be read ({error.strerror}): {hint}") from None
        except OSError as error:
            raise SourceError(f"{self.name} cannot be reached ({error.strerror})") from None
        if not there:
            raise UsageError(f"{self.name} is not there: no object's name begins so")

    def is_file(self) -> bool:
        """Whether the URL names one object, and not a folder: see `split`."""
        if self._place.slash or not self._place.inner:
            return False
        try:
            return not self._try(lambda: self._run(self._driver.find(""))).is_page
        except (FileNotFoundError, IsADirectoryError):
            return False

    def split(self) -> tuple["ObjectFolder", str]:
        """The folder that an object's URL is in, and the object's path below it.

        Raises:
            UsageError: the URL is a bucket's or a host's.
        """
        parent, _, name = self.url.rpartition("/")
        if not self._place.inner:
            raise UsageError(f"{self.name} names no object")
        name = unquote(name) if self._place.driver == "http" else name
        return ObjectFolder(parent + "/", self._seconds, self._answer_seconds), name

    def walk(self) -> Iterator[Object]:
        """List again what is there, no path twice; a folder's objects come one after the other.

        A store's objects come in the order of their keys, page by page as the store tells them. Index pages are
        read folder by folder, in the order of their names.

        Raises:
            OSError: as all methods; of an index page, only if it is the first: the others are told with a reason.
        """
        driver = self._driver
        return _WebWalk(self, driver).walk() if isinstance(driver, _Http) else self._walk_pages(driver)

    def _walk_pages(self, driver: "_Driver") -> Iterator[Object]:
        token: str | None = None
        while True:
            listed, following = self._try(lambda: self._run(driver.page(token)))  # noqa: B023
            yield from listed
            if following is None:
                return
            token = following

    def version(self, path: str) -> Version:
        """What tells whether an object has changed: one request, without its bytes."""
        _check_path(path)
        return self._try(lambda: self._run(self._driver.find(path))).version()

    def fetch(
        self, path: str, reserve: Callable[[int], None] = lambda size: None, max_bytes: int | None = None
    ) -> Fetched:
        """Read a whole object, and its version, with one request.

        Args:
            path: relative to the URL, with `/` between its parts.
            reserve: called with the object's size before any of it is read, from the calling thread; what it
                raises ends the reading. When the size is not told, or is larger at another try, called with what
                comes on top.
            max_bytes: a larger object is not read.

        Raises:
            ObjectTooLargeError: it has more bytes than `max_bytes`.
        """
        _check_path(path)
        claim = _Claim(reserve, max_bytes)

        def attempt() -> Fetched:
            answer = self._run(self._driver.get(path))
            try:
                if answer.length is None:
                    data = self._of_unknown_length(answer, claim)
                else:
                    claim.up_to(answer.length)
                    data = self._run(answer.whole())
            finally:
                self._run(answer.close())
            return Fetched(data, answer.found.version())

        return self._try(attempt)

    def read(
        self, path: str, reserve: Callable[[int], None] = lambda size: None, max_bytes: int | None = None
    ) -> bytes:
        """The bytes alone of what `fetch` gives."""
        return self.fetch(path, reserve, max_bytes).data

    def head(self, path: str, count: int) -> bytes:
        """The first bytes of an object, `count` at most, with one request."""
        _check_path(path)

        def attempt() -> bytes:
            answer = self._run(self._driver.get(path, (0, count)))
            try:
                return self._run(answer.first(count))
            finally:
                self._run(answer.close())

        try:
            return self._try(attempt)
        except _RangeError:  # of an empty object
            return b""

    def open(self, path: str, max_bytes: int | None = None) -> BinaryIO:
        """Open an object to read parts of it: a block for each place that is read, of one version only.

        An object of one block is read at once. Of a server that knows no ranges, the object is copied into a
        temporary file, without a name.

        Args:
            path: relative to the URL, with `/` between its parts.
            max_bytes: a larger object is not copied.

        Raises:
            ObjectTooLargeError: it would be copied, and has more bytes than `max_bytes`.
        """
        _check_path(path)

        def attempt() -> BinaryIO:
            answer = self._run(self._driver.get(path, (0, BLOCK)))
            try:
                size = answer.found.size
                if size is None or (size > BLOCK and not answer.ranged):
                    return self._copy(answer, _Claim(lambda size: None, max_bytes))
                first = self._run(answer.whole())
                if size <= len(first):
                    return io.BytesIO(first)
                return cast(BinaryIO, io.BufferedReader(_RangeFile(self, path, answer.found, first), BLOCK))
            finally:
                self._run(answer.close())

        try:
            return self._try(attempt)
        except _RangeError:
            return io.BytesIO(b"")

    def read_ahead(
        self, paths: Sequence[str], at_once: int = 16, max_ahead_bytes: int = AHEAD_BYTES
    ) -> "ReadAhead":
        """Begin to read objects that will be wanted: see `ReadAhead`."""
        return ReadAhead(self, paths, at_once, max_ahead_bytes)

    def _of_unknown_length(self, answer: "_Answer", claim: "_Claim") -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := self._run(answer.piece()):
            size += len(part)
            claim.up_to(size)
            parts.append(part)
        return b"".join(parts)

    def _copy(self, answer: "_Answer", claim: "_Claim") -> BinaryIO:
        if answer.length is not None:
            claim.up_to(answer.length)
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            size = 0
            while part := self._run(answer.piece()):
                size += len(part)
                claim.up_to(size)
                file.write(part)
            if answer.length not in (None, size):
                raise _cut_short(size, answer.length)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return cast(BinaryIO, file)

    def _range(self, path: str, begin: int, end: int, found: "_Found") -> bytes:
        """Some bytes of the version that was found."""

        def attempt() -> bytes:
            answer = self._run(self._driver.get(path, (begin, end), found))
            try:
                if answer.found.differs(found) or not answer.ranged:
                    raise _TryError(errno.ESTALE, "the object changed while it was read")
                return self._run(answer.whole())
            finally:
                self._run(answer.close())

        return self._try(attempt)

    @property
    def _driver(self) -> "_Driver":
        """The driver of this process. One that a fork brought along stays unused: its loop's thread is not here.

        Without a lock, which a fork could find locked for ever: a driver that loses a race was never connected.
        """
        process = os.getpid()
        if process not in self._drivers:
            makers: dict[str, type[_S3] | type[_Gs] | type[_Http]] = {"s3": _S3, "gs": _Gs, "http": _Http}
            make = makers[self._place.driver]
            self._drivers.setdefault(process, make(self._place, self._answer_seconds))
        return self._drivers[process]

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Have the driver's own thread do a piece of work; errors of drivers come out as `_TryError`."""
        future: Future[_T] = asyncio.run_coroutine_threadsafe(work, self._driver.loop)
        try:
            return future.result()
        except Exception as error:
            failed = _failure(error)
        except BaseException:
            future.cancel()
            raise
        raise failed  # outside of the handler: nothing of the driver's text hangs on it

    def _try(self, attempt: Callable[[], _T], seconds: float | None = None) -> _T:
        try:
            return Retrying(**self._retrying(seconds or self._seconds))(attempt)
        except _TryError as error:
            failed = error
        raise failed.error

    async def _try_in_loop(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """As `_try`, in the driver's thread; what it raises is still a `_TryError`."""

        async def clean() -> _T:
            try:
                return await attempt()
            except Exception as error:
                failed = _failure(error)
            raise failed

        return await AsyncRetrying(**self._retrying(self._seconds))(clean)

    def _retrying(self, seconds: float) -> dict[str, Any]:
        return {
            "retry": retry_if_exception(lambda error: isinstance(error, _TryError) and error.passing),
            "stop": stop_before_delay(seconds) & stop_after_attempt(2),
            "wait": lambda state: min(_wait(state), seconds / 3),
            "before_sleep": self._tell,
            "reraise": True,
        }

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1 and isinstance(error, _TryError):
            logger.info("%s: %s; trying again", self.name, error.error.strerror)


class ReadAhead:
    """Reads the objects of a batch in the background, so that the server's delay is not waited for one by one.

    Objects are begun in the order of their paths, and their bytes are kept until they are taken, or the block ends.
    `max_ahead_bytes` bounds what is kept, whatever else the batch holds. Who wants an object that there is no room
    for, or that was not begun, reads it itself, so nobody ever waits for room: there is no deadlock.

    A context manager; `read` and `fetch` are safe to use from several threads.
    """

    def __init__(self, folder: ObjectFolder, paths: Sequence[str], at_once: int, max_ahead_bytes: int) -> None:
        """Args:
        folder: where the objects are.
        paths: of the objects, in the order that they will be wanted in. One that is there twice is read ahead once.
        at_once: how many are read at one time.
        max_ahead_bytes: how many bytes may be kept; a larger object is never read ahead.
        """
        self._folder = folder
        self._paths = [path for path in dict.fromkeys(paths) if _path_reason(path) is None]
        self._at_once = at_once
        self._room = _Room(max_ahead_bytes)
        self._items: dict[str, _Item] = {}

    def __enter__(self) -> "ReadAhead":
        self._folder._run(self._begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._folder._run(self._end())

    def read(
        self, path: str, reserve: Callable[[int], None] = lambda size: None, max_bytes: int | None = None
    ) -> bytes:
        """As `ObjectFolder.read`, from what was read ahead if it was."""
        return self.fetch(path, reserve, max_bytes).data

    def fetch(
        self, path: str, reserve: Callable[[int], None] = lambda size: None, max_bytes: int | None = None
    ) -> Fetched:
        """As `ObjectFolder.fetch`, from what was read ahead if it was.

        When `reserve` raises, the bytes stay, and can be asked for again. Afterwards they are the caller's alone.
        """
        item = self._items.get(path)
        fetched = None if item is None else self._wait_for(item)
        if item is None or fetched is None:
            return self._folder.fetch(path, reserve, max_bytes)
        _Claim(reserve, max_bytes).up_to(len(fetched.data))
        self._folder._run(self._take(path, item))
        return fetched

    def version(self, path: str) -> Version:
        """As `ObjectFolder.version`, from what was read ahead if it was: that costs no request."""
        item = self._items.get(path)
        fetched = None if item is None else self._wait_for(item)
        return self._folder.version(path) if fetched is None else fetched.version

    def _wait_for(self, item: "_Item") -> Fetched | None:
        try:
            return self._folder._run(self._result(item))
        except _TryError as error:
            failed = error
        raise failed.error

    # All below runs in the driver's thread, one at a time: there are no locks.

    async def _begin(self) -> None:
        turns = asyncio.Semaphore(self._at_once)
        for path in self._paths:
            item = _Item()
            item.task = asyncio.create_task(self._one(path, item, turns))
            self._items[path] = item

    async def _end(self) -> None:
        tasks = [item.task for item in self._items.values() if item.task]
        self._items.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _result(self, item: "_Item") -> Fetched | None:
        """What was read; or None if it must be read by who wants it."""
        item.wanted = True
        task = item.task
        if task is None:
            return None
        if item.idle:
            task.cancel()
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def _take(self, path: str, item: "_Item") -> None:
        if self._items.get(path) is item:
            del self._items[path]
            self._room.give_back(item)
        item.task = None

    async def _one(self, path: str, item: "_Item", turns: asyncio.Semaphore) -> Fetched | None:
        try:
            async with turns:
                item.idle = False
                return await self._folder._try_in_loop(lambda: self._attempt(path, item))
        except BaseException:
            self._room.give_back(item)
            raise

    async def _attempt(self, path: str, item: "_Item") -> Fetched | None:
        while True:
            answer = await self._folder._driver.get(path)
            try:
                size = answer.length
                if size is None or size > self._room.total:
                    return None
                if self._room.take(item, size):
                    return Fetched(await answer.whole(), answer.found.version())
            finally:
                # A server would not wait with the rest of its answer until there is room.
                await answer.close()
            if item.wanted:
                return None
            item.idle = True
            await self._room.wait_for(item, size)
            item.idle = False


@dataclass(eq=False)
class _Item:
    """An object that is read ahead."""

    task: asyncio.Task[Fetched | None] | None = None
    idle: bool = True
    """It waits for its turn or for room: nothing of it is there."""
    wanted: bool = False
    """Somebody waits for it."""
    held: int = 0
    """Bytes of the room that are its own."""


class _Room:
    """Bytes that objects read ahead may take: first come, first served. Used in one thread."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._queue: deque[tuple[_Item, int, asyncio.Future[None]]] = deque()

    def take(self, item: _Item, size: int) -> bool:
        """Have an item hold `size` bytes, if so many are free and nobody was there before."""
        if size - item.held > self._free or (self._queue and not item.held):
            return False
        self._free -= size - item.held
        item.held = size
        return True

    async def wait_for(self, item: _Item, size: int) -> None:
        self.give_back(item)
        entry = (item, size, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._serve()
        try:
            await entry[2]
        finally:
            if entry in self._queue:
                self._queue.remove(entry)
                self._serve()

    def give_back(self, item: _Item) -> None:
        self._free += item.held
        item.held = 0
        self._serve()

    def _serve(self) -> None:
        while self._queue and self._queue[0][1] <= self._free:
            item, size, turn = self._queue.popleft()
            self._free -= size
            item.held = size
            if not turn.done():
                turn.set_result(None)
            else:  # it was cancelled, and would never give back
                self._free += size
                item.held = 0


class _RangeFile(io.RawIOBase):
    """An object of which each read asks for as many bytes as are wanted. A buffer lies before it."""

    def __init__(self, folder: ObjectFolder, path: str, found: "_Found", first: bytes) -> None:
        self._folder = folder
        self._path = path
        self._found = found
        self._size = cast(int, found.size)
        self._first = first
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise OSError(errno.EINVAL, "a place before the beginning")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        if self._at < len(self._first):
            data = self._first[self._at : end]
        else:
            data = self._folder._range(self._path, self._at, end, self._found)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Claim:
    """What was reserved for an object: more when more is needed, never twice for a second try."""

    def __init__(self, reserve: Callable[[int], None], max_bytes: int | None) -> None:
        self._reserve = reserve
        self._max_bytes = max_bytes
        self._had: int | None = None

    def up_to(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise ObjectTooLargeError(size)
        if self._had is None or size > self._had:
            self._reserve(size - (self._had or 0))
            self._had = size


# ---- URLs and paths


class _Place(NamedTuple):
    """Where a URL points."""

    driver: str
    url: str
    """Without a slash at its end."""
    host: str
    """The bucket; of a web server `https://host:port`."""
    inner: str
    """The path in it, decoded, without slashes at its ends."""
    slash: bool
    """Whether the URL ended with a slash: a folder's does."""


def _parse(url: str) -> _Place:
    if local_folder(url) is not None:
        raise UsageError("a file:// URL is a local folder: give its path")
    if not is_url(url):
        raise UsageError(f"this is no URL: {TAKEN}")
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    host, _, inner = rest.partition("/")
    # None of these messages shows the URL: what is wrong may be a password in it.
    if "@" in host or (DRIVERS[scheme] != "http" and ":" in host):
        raise UsageError(
            f"the {scheme}:// URL holds a name or a password before its host: a job's URL is stored and shown. "
            f"Take them out, and {_CREDENTIALS[DRIVERS[scheme]]}"
        )
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"the {scheme}:// URL holds a query (?...) or a fragment (#...): a signature in it would be stored and "
            "shown, and paths cannot be added to it. Take it out"
        )
    web = DRIVERS[scheme] == "http"
    place = f"{scheme}://{host}" if web else host
    if not _can_be_host(host, web):
        raise UsageError(f"the {scheme}:// URL names no {'host' if web else 'bucket'}: {scheme}://NAME/folder")
    inner = inner.removesuffix("/")
    path = unquote(inner, errors="surrogateescape") if web else inner
    if path and _path_reason(path):
        raise UsageError(f"the {scheme}:// URL has a path that {_path_reason(path)}")
    return _Place(DRIVERS[scheme], f"{scheme}://{host}/{inner}".rstrip("/"), place, path, url.endswith("/"))


def _can_be_host(host: str, web: bool) -> bool:
    if not web:
        return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._\-]{1,221}", host) is not None
    try:
        return bool(urlsplit(f"//{host}").hostname) and urlsplit(f"//{host}").port != 0 and " " not in host
    except ValueError:
        return False


def _check_driver(place: _Place) -> None:
    try:
        fsspec.get_filesystem_class(place.driver)
    except ImportError:
        raise UsageError(
            f"{place.url} needs a driver that is not installed: pip install 'scanomaly[{place.driver}]'"
        ) from None


def _path_reason(path: str) -> str | None:
    """Why a key is no path, or None."""
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in path):
        return "holds control characters"
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        return "holds an empty part, . or .."
    if not path.isascii() and any("\ud800" <= letter <= "\udfff" for letter in path):
        return "is not valid UTF-8"
    return None


def _check_path(path: str) -> None:
    reason = _path_reason(path)
    if reason:
        raise FileNotFoundError(errno.ENOENT, f"the path {reason}")


def _listed(path: str, size: int | None, tag: str | None) -> Object:
    reason = _path_reason(path)
    if reason is None:
        return Object(path, size, None if tag is None else _stamp(tag))
    shown = "".join(letter if _path_reason(f"a{letter}a") is None else ascii(letter)[1:-1] for letter in path)
    return Object(shown, size, None, f"its name {reason}: it cannot be a path")


def _stamp(tag: str) -> int:
    return int.from_bytes(hashlib.blake2b(tag.encode("utf-8", "replace"), digest_size=8).digest()) >> 1


# ---- What went wrong


class _TryError(Exception):
    """A try that failed: the error to raise, and whether another try may do better."""

    def __init__(self, number: int, text: str, passing: bool = False, after: float = 0.0) -> None:
        super().__init__(text)
        self.error: OSError = _RangeError(number, text) if number == errno.ERANGE else OSError(number, text)
        self.passing = passing
        self.after = after


class _RangeError(OSError):
    """There is no such range: the object is empty, or shorter than it was."""


def _wait(state: RetryCallState) -> float:
    """Seconds: up to 0.2, 0.4, 0.8 ... 10 at random, but not less than the server asks for."""
    error = state.outcome.exception() if state.outcome else None
    after = error.after if isinstance(error, _TryError) else 0.0
    return max(random.uniform(0, min(10.0, 0.1 * 2**state.attempt_number)), after)


def _failure(error: Exception) -> Exception:
    """What a driver's error means; any error that is not a driver's as it is."""
    if isinstance(error, _TryError | ObjectTooLargeError):
        return error
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:  # botocore's
        about = response.get("ResponseMetadata", {})
        return _status_failure(
            int(about.get("HTTPStatusCode", 0)),
            str(response["Error"].get("Code", "")),
            str(about.get("HTTPHeaders", {}).get("retry-after", "")),
        )
    return _driver_failure(error)


_FORBIDDEN_CODES = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
    | {"TokenRefreshRequired", "InvalidObjectState", "InvalidSecurity", "RequestTimeTooSkewed", "AccountProblem"}
)
_PASSING_CODES = frozenset(
    {"InternalError", "RequestLimitExceeded", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"}
    | {"ThrottlingException", "TooManyRequests", "XAmzContentSHA256Mismatch", "BadDigest", "OperationAborted"}
)


def _status_failure(status: int, code: str = "", retry_after: str = "") -> _TryError:
    # A code is a server's word: it is shown only if it looks like one.
    code = code if re.fullmatch(r"[A-Za-z]{3,64}", code) else ""
    said = f"{status} {code}".strip()
    after = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    if code in _PASSING_CODES or status in (408, 425, 429) or (status >= 500 and status not in (501, 505)):
        return _TryError(errno.EIO, f"the server answered {said}", True, after)
    if code in _FORBIDDEN_CODES or status in (401, 403, 407):
        return _TryError(errno.EACCES, f"not allowed: {said}")
    if status in (404, 410) or code.startswith("NoSuch"):
        return _TryError(
            errno.ENOENT, "there is no such bucket" if code == "NoSuchBucket" else "there is no such object"
        )
    if status == 412:
        return _TryError(errno.ESTALE, "the object changed while it was read")
    if status == 416:
        return _TryError(errno.ERANGE, "there is no such range of the object")
    return _TryError(errno.EIO, f"the server answered {said}")


# By name, so that no driver needs to be there; a name stands for its subclasses too. The first that fits holds.
_MEANINGS: tuple[tuple[set[str], int, str, bool], ...] = (
    (
        {"builtins.TimeoutError", "botocore.ReadTimeoutError", "botocore.ConnectTimeoutError"},
        errno.ETIMEDOUT,
        "the server did not answer in time",
        True,
    ),
    (
        {"ssl.SSLError", "aiohttp.ClientSSLError", "botocore.SSLError"},
        errno.EIO,
        "the server cannot be trusted: its certificate, or TLS ({})",
        False,
    ),
    ({"aiohttp.InvalidURL"}, errno.EIO, "the address cannot be right ({})", False),
    (
        {"builtins.OSError", "builtins.EOFError", "aiohttp.ClientError", "requests.RequestException"}
        | {"google.TransportError", "botocore.HTTPClientError", "botocore.ConnectionError"}
        | {"botocore.IncompleteReadError", "botocore.ResponseParserError", "botocore.FlexibleChecksumError"},
        errno.EIO,
        "the connection failed ({})",
        True,
    ),
    (
        {"botocore.NoCredentialsError", "botocore.PartialCredentialsError", "botocore.CredentialRetrievalError"}
        | {
            "botocore.NoAuthTokenError",
            "botocore.ProfileNotFound",
            "botocore.ConfigParseError",
            "botocore.SSOError",
        }
        | {"botocore.TokenRetrievalError", "google.GoogleAuthError", "gcsfs.HttpError", "gcsfs.NonRetryableError"},
        errno.EACCES,
        "the credentials of the environment cannot be used: {}",
        False,
    ),
    ({"botocore.BotoCoreError"}, errno.EIO, "the driver failed ({})", False),
)


def _driver_failure(error: Exception) -> Exception:
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    name = type(error).__name__
    number = getattr(error, "errno", None)
    if number in _OURS:
        return _TryError(number, os.strerror(number))
    for names, means, text, passing in _MEANINGS:
        if kinds & names:
            return _TryError(means, text.format(name), passing)
    return error  # ours


def _cut_short(size: int, length: int | None) -> _TryError:
    return _TryError(errno.EIO, f"the answer was cut short, after {size} of {length} bytes", True)


# ---- What servers answer


class _Found(NamedTuple):
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

    def differs(self, other: "_Found") -> bool:
        return self.size != other.size or (None not in (self.tag, other.tag) and self.tag != other.tag)


@dataclass
class _Answer:
    """An answer whose body is still to come."""

    found: _Found
    length: int | None
    """Of the body, in bytes."""
    ranged: bool
    """Whether the body is the range that was asked for; else the whole object."""
    body: Any
    """Has a coroutine `read(count)` that gives bytes, fewer than wanted or none at the end."""
    drop: Callable[[], None] = field(default=lambda: None)

    async def piece(self, count: int = _PIECE) -> bytes:
        return bytes(await self.body.read(count))

    async def first(self, count: int) -> bytes:
        """So many bytes, or all that there are."""
        parts: list[bytes] = []
        size = 0
        while size < count and (part := await self.piece(min(_PIECE, count - size))):
            parts.append(part)
            size += len(part)
        if size < count and self.length not in (None, size):
            raise _cut_short(size, self.length)
        return b"".join(parts)

    async def whole(self) -> bytes:
        """Of a known length."""
        # A byte more than there should be, so that the driver sees the end, and keeps the connection.
        length = cast(int, self.length)
        data = await self.first(length + 1)
        if len(data) != length:
            raise _cut_short(len(data), length)
        return data

    async def close(self) -> None:
        self.drop()


class _Driver(Protocol):
    """Asks one kind of server. All coroutines run in `loop`, and raise what the driver raises."""

    loop: asyncio.AbstractEventLoop

    async def is_there(self) -> bool: ...

    async def page(self, token: str | None) -> tuple[list[Object], str | None]:
        """One page of the listing, and what asks for the following one."""
        ...

    async def find(self, path: str) -> _Found:
        """Of the object at a path; `""` is the URL itself."""
        ...

    async def get(self, path: str, part: tuple[int, int] | None = None, same: _Found | None = None) -> _Answer:
        """Begin to read an object.

        Args:
            path: as of `find`.
            part: its first byte, and the one after its last; None for all of it.
            same: what was found before: a server may refuse another version.
        """
        ...


def _range_header(part: tuple[int, int]) -> str:
    return f"bytes={part[0]}-{part[1] - 1}"


def _whole_size(content_range: str | None) -> int | None:
    """`bytes 0-9/100` → 100."""
    match = re.fullmatch(r"bytes \d+-\d+/(\d+)", content_range or "")
    return int(match[1]) if match else None


class _S3:
    """S3, and servers that speak its protocol."""

    def __init__(self, place: _Place, answer_seconds: float) -> None:
        self._bucket = place.host
        self._inner = place.inner
        self._prefix = f"{place.inner}/" if place.inner else ""
        self._options = {
            "skip_instance_cache": True,
            "use_listings_cache": False,
            "config_kwargs": {
                "connect_timeout": answer_seconds,
                "read_timeout": answer_seconds,
                "retries": {"mode": "standard", "total_max_attempts": 1},
                "max_pool_connections": 64,
            },
        }
        self._files = self._make()
        self._ready = False
        self._lock = asyncio.Lock()
        self.loop: asyncio.AbstractEventLoop = self._files.loop

    def _make(self, **more: Any) -> Any:
        return fsspec.filesystem("s3", **self._options, **more)

    async def is_there(self) -> bool:
        told = await self._ask("list_objects_v2", Prefix=self._prefix, MaxKeys=1)
        if told.get("Contents") or not self._inner:
            return True
        return await _is_object(self.find(""))

    async def page(self, token: str | None) -> tuple[list[Object], str | None]:
        more = {} if token is None else {"ContinuationToken": token}
        told = await self._ask("list_objects_v2", Prefix=self._prefix, MaxKeys=PAGE, **more)
        listed = [
            _listed(path, entry["Size"], _s3_tag(entry))
            for entry in told.get("Contents", [])
            if (path := _below(self._prefix, entry["Key"], entry["Size"]))
        ]
        following = told.get("NextContinuationToken") if told.get("IsTruncated") else None
        return listed, _unlike(following, token)

    async def find(self, path: str) -> _Found:
        told = await self._ask("head_object", Key=self._key(path))
        return _Found(told.get("ContentLength"), _s3_tag(told))

    async def get(self, path: str, part: tuple[int, int] | None = None, same: _Found | None = None) -> _Answer:
        more = {"Range": _range_header(part)} if part else {}
        if same and same.tag and same.tag.startswith('"'):
            more["IfMatch"] = same.tag
        told = await self._ask("get_object", Key=self._key(path), **more)
        length, ranged = told.get("ContentLength"), bool(told.get("ContentRange"))
        size = _whole_size(told.get("ContentRange")) if ranged else length
        return _Answer(_Found(size, _s3_tag(told)), length, ranged, told["Body"], told["Body"].close)

    def _key(self, path: str) -> str:
        return self._prefix + path if path else self._inner

    async def _ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        if not self._ready:
            async with self._lock:
                if not self._ready:
                    await self._sign_or_not()
        # Not by `call_s3`, which waits after an error even when it will not try again.
        call = getattr(await self._files.set_session(), method)
        told: dict[str, Any] = await call(
            **self._files._get_s3_method_kwargs(call, Bucket=self._bucket, **arguments)
        )
        return told

    async def _sign_or_not(self) -> None:
        """Without any credentials ask as anybody: public buckets need none, and answer 403 to a wrong signature."""
        if not (self._files.anon or self._files.key):
            await self._files.set_session()
            if await self._files.session.get_credentials() is None:
                self._files = self._make(anon=True)
        self._ready = True


async def _is_object(finding: Awaitable[_Found]) -> bool:
    try:
        await finding
    except Exception as error:
        failed = _failure(error)
        if isinstance(failed, _TryError) and isinstance(failed.error, FileNotFoundError):
            return False
        raise
    return True


def _s3_tag(told: dict[str, Any]) -> str | None:
    """The ETag; else the time, whose parts of a second only listings tell."""
    if told.get("ETag"):
        return str(told["ETag"])
    time = told.get("LastModified")
    return None if time is None else str(time.replace(microsecond=0).isoformat())


def _below(prefix: str, key: str, size: int) -> str:
    """A key's path below a prefix; "" for one that only stands for a folder."""
    return "" if key.endswith("/") and not size else key.removeprefix(prefix)


def _unlike(following: str | None, token: str | None) -> str | None:
    if following is not None and following == token:
        raise _TryError(errno.EIO, "the server's listing does not end")
    return following


class _Web:
    """What web servers and Google have in common: HTTP by aiohttp."""

    loop: asyncio.AbstractEventLoop

    async def _session(self) -> Any:
        raise NotImplementedError

    async def _headers(self) -> dict[str, str]:
        raise NotImplementedError

    async def _send(self, method: str, url: str, headers: dict[str, str] | None = None) -> Any:
        """A response with the object. Redirects are followed, also to other hosts, to http and https only."""
        import yarl

        session = await self._session()
        # As stored: a length is checked, and a compressed file that a server calls an encoding is a file.
        all_headers = {"Accept-Encoding": "identity"} | await self._headers() | (headers or {})
        for _ in range(_MOST_REDIRECTS + 1):
            response = await session.request(
                method,
                yarl.URL(url, encoded=True),
                headers=all_headers,
                allow_redirects=False,
                proxy=_proxy(url),
            )
            if response.status not in (301, 302, 303, 307, 308):
                return _accept(response)
            response.close()
            to = _redirected(url, response.headers.get("Location", ""))
            if _origin(to) != _origin(url):  # what is secret is for the first host alone
                all_headers = {
                    name: all_headers[name] for name in ("Accept-Encoding", "Range") if name in all_headers
                }
            url = to
        raise _TryError(errno.EIO, "the server redirects too often")

    async def _begin(
        self, url: str, headers: dict[str, str], part: tuple[int, int] | None
    ) -> tuple[Any, bool, int | None]:
        """A response, whether it is the part, and the size of the whole."""
        response = await self._send("GET", url, headers | ({"Range": _range_header(part)} if part else {}))
        if response.status != 206:
            return response, False, response.content_length
        told = response.headers.get("Content-Range", "")
        size = _whole_size(told)
        if part is None or size is None or not told.startswith(f"bytes {part[0]}-"):
            response.close()
            raise _TryError(errno.EIO, "the server sent another range than was asked for")
        return response, True, size


def _accept(response: Any) -> Any:
    if response.status in (200, 206):
        return response
    response.close()
    raise _status_failure(response.status, "", response.headers.get("Retry-After", ""))


def _redirected(url: str, location: str) -> str:
    import yarl

    try:
        to = str(yarl.URL(urljoin(url, location)).with_fragment(None))
        scheme, host = urlsplit(to).scheme, urlsplit(to).hostname
    except ValueError:
        scheme, host, to = "", None, ""
    if scheme not in ("http", "https") or not host:
        raise _TryError(errno.EIO, "the server redirects to what is no web address")
    if scheme == "http" and url.startswith("https:"):
        raise _TryError(errno.EIO, "the server redirects from https to http")
    return to


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _proxy(url: str) -> str | None:
    """Of HTTP_PROXY, HTTPS_PROXY and NO_PROXY. aiohttp would read ~/.netrc with them."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _session_options(answer_seconds: float) -> dict[str, Any]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(
        total=None, connect=answer_seconds, sock_connect=answer_seconds, sock_read=answer_seconds
    )
    return {"timeout": timeout, "auto_decompress": False}


class _Gs(_Web):
    """Google Cloud Storage: its JSON interface, with the credentials that gcsfs found."""

    def __init__(self, place: _Place, answer_seconds: float) -> None:
        self._bucket = place.host
        self._inner = place.inner
        self._prefix = f"{place.inner}/" if place.inner else ""
        self._files: Any = fsspec.filesystem(
            "gs",
            access="read_only",
            skip_instance_cache=True,
            use_listings_cache=False,
            session_kwargs=_session_options(answer_seconds),
        )
        self.loop = self._files.loop

    async def is_there(self) -> bool:
        told = await self._list(f"prefix={quote(self._prefix, safe='')}&maxResults=1")
        if told.get("items") or not self._inner:
            return True
        return await _is_object(self.find(""))

    async def page(self, token: str | None) -> tuple[list[Object], str | None]:
        query = f"prefix={quote(self._prefix, safe='')}&maxResults={PAGE}"
        told = await self._list(query if token is None else f"{query}&pageToken={quote(token, safe='')}")
        listed = [
            _listed(path, int(entry["size"]), entry.get("generation"))
            for entry in told.get("items", [])
            if (path := _below(self._prefix, entry["name"], int(entry["size"])))
        ]
        return listed, _unlike(told.get("nextPageToken"), token)

    async def find(self, path: str) -> _Found:
        told = await self._json(f"{self._object(path)}?fields=size,generation")
        return _Found(int(told["size"]), told.get("generation"))

    async def get(self, path: str, part: tuple[int, int] | None = None, same: _Found | None = None) -> _Answer:
        url = f"{self._object(path)}?alt=media".replace("/storage/v1/", "/download/storage/v1/", 1)
        if same and same.tag:
            url += f"&ifGenerationMatch={same.tag}"
        # With gzip allowed, what was uploaded compressed comes as it is stored, with its own length.
        response, ranged, size = await self._begin(url, {"Accept-Encoding": "gzip"}, part)
        found = _Found(size, response.headers.get("x-goog-generation"))
        return _Answer(found, response.content_length, ranged, response.content, response.close)

    def _object(self, path: str) -> str:
        key = self._prefix + path if path else self._inner
        return f"{self._files.base}b/{self._bucket}/o/{quote(key, safe='')}"

    async def _list(self, query: str) -> dict[str, Any]:
        fields = "fields=items(name,size,generation),nextPageToken"
        try:
            return await self._json(f"{self._files.base}b/{self._bucket}/o?{query}&{fields}")
        except _TryError as failed:
            if isinstance(failed.error, FileNotFoundError):
                raise _TryError(errno.ENOENT, "there is no such bucket") from None
            raise

    async def _json(self, url: str) -> dict[str, Any]:
        response = await self._send("GET", url)
        try:
            told: dict[str, Any] = await response.json()
        finally:
            response.close()
        return told

    async def _session(self) -> Any:
        return await self._files._set_session()

    async def _headers(self) -> dict[str, str]:
        # It may ask for a new token, and wait for it.
        headers: dict[str, str] = await asyncio.to_thread(self._files._get_headers, None)
        return headers


class _Http(_Web):
    """A web server with index pages."""

    def __init__(self, place: _Place, answer_seconds: float) -> None:
        import yarl

        # With a small host, in ASCII, as redirects and links name it.
        self._root = f"{yarl.URL(place.host).origin()}/{quote(place.inner)}"
        self._base = self._root.rstrip("/")
        self._files: Any = fsspec.filesystem(
            "http",
            skip_instance_cache=True,
            use_listings_cache=False,
            get_client=_web_client,
            client_kwargs=_session_options(answer_seconds),
        )
        self.loop = self._files.loop

    async def is_there(self) -> bool:
        try:
            found = await self.find("")
        except _TryError as failed:
            if not isinstance(failed.error, IsADirectoryError):
                raise
        else:
            if not found.is_page:
                return True
        await self.index("")
        return True

    async def page(self, token: str | None) -> tuple[list[Object], str | None]:
        raise NotImplementedError("its pages are walked")

    async def find(self, path: str) -> _Found:
        url = self._url(path)
        try:
            response = await self._send("HEAD", url)
            size = response.content_length
        except _TryError as failed:
            # Not every server, and no signed address, takes HEAD.
            if failed.passing or isinstance(failed.error, FileNotFoundError):
                raise
            size = None
        if size is None:
            try:
                response, _, size = await self._begin(url, {}, (0, 1))
            except _TryError as failed:
                if failed.error.errno != errno.ERANGE:
                    raise
                return _Found(0, None)
        response.close()
        return _web_found(response, url, size)

    async def get(self, path: str, part: tuple[int, int] | None = None, same: _Found | None = None) -> _Answer:
        url = self._url(path)
        response, ranged, size = await self._begin(url, {}, part)
        try:
            found = _web_found(response, url, size)
        except _TryError:
            response.close()
            raise
        return _Answer(found, response.content_length, ranged, response.content, response.close)

    async def index(self, folder: str) -> "_Index":
        """The links of a folder's index page that stay below it."""
        response = await self._send("GET", self._url(folder).rstrip("/") + "/", {"Accept": "text/html"})
        try:
            at = str(response.url)
            if not unquote(at).startswith(unquote(f"{self._base}/")):
                raise _TryError(errno.EIO, "its index page is elsewhere")
            if not _is_page(response) or response.headers.get("Content-Encoding", "identity") != "identity":
                raise _TryError(errno.ENOTDIR, "the server shows no index page of it")
            links = _Links(at)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            size = 0
            while data := await response.content.read(_PIECE):
                size += len(data)
                if size > _MOST_INDEX_BYTES:
                    raise _TryError(errno.EFBIG, "its index page is too large")
                links.feed(decoder.decode(data))
        finally:
            response.close()
        if response.content_length not in (None, size):
            raise _cut_short(size, response.content_length)
        return _Index(at, sorted(links.below))

    def _url(self, path: str) -> str:
        return f"{self._base}/{quote(path)}" if path else self._root

    async def _session(self) -> Any:
        return await self._files.set_session()

    async def _headers(self) -> dict[str, str]:
        return dict(self._files.kwargs.get("headers", {}))  # of FSSPEC_HTTP


async def _web_client(loop: asyncio.AbstractEventLoop, **options: Any) -> Any:
    import aiohttp

    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), **options)


def _is_page(response: Any) -> bool:
    return response.content_type in ("text/html", "application/xhtml+xml")


def _web_found(response: Any, url: str, size: int | None) -> _Found:
    if str(response.url) == f"{url}/":
        raise _TryError(errno.EISDIR, "it is a folder, with an index page")
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
    return _Found(size, tag, _is_page(response))


# ---- Index pages


class _Index(NamedTuple):
    """What an index page links to: paths below it, and whether each is a folder, in order."""

    url: str
    links: list[tuple[str, bool]]

    def loops(self, above: tuple["_Index", ...]) -> bool:
        """Whether a folder is one above it once more, as a link to a folder makes it.

        Two folders with nothing but a folder in them may well be alike by chance.
        """
        has_file = any(not is_folder for _, is_folder in self.links)
        return sum(self.links == index.links for index in above) >= (1 if has_file else 2)


class _Links(HTMLParser):
    """Gathers the links of a page that lead below it."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.below: set[tuple[str, bool]] = set()
        self._page = url.partition("?")[0].rpartition("/")[0] + "/"
        self._base = url

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if not target or tag not in ("a", "base"):
            return
        try:
            url = urljoin(self._base, target.strip())
            if _origin(url) != _origin(self._page):
                return
        except ValueError:
            return
        if tag == "base":
            self._base = url
            return
        url, _, _ = url.partition("#")
        path = unquote(urlsplit(url).path, errors="surrogateescape")
        page = unquote(urlsplit(self._page).path, errors="surrogateescape")
        # With a query it is the page itself, in another order.
        if "?" not in url and path.startswith(page) and path != page:
            inner = path.removeprefix(page)
            self.below.add((inner.removesuffix("/"), inner.endswith("/")))


class _WebWalk:
    """Walks index pages, depth first; each page once."""

    def __init__(self, folder: ObjectFolder, driver: _Http) -> None:
        self._folder = folder
        self._driver = driver
        self._seen: set[bytes] = set()

    def walk(self) -> Iterator[Object]:
        index = self._index("")
        self._is_new(index.url)
        return self._below("", index, ())

    def _index(self, folder: str) -> _Index:
        return self._folder._try(lambda: self._folder._run(self._driver.index(folder)))

    def _below(self, folder: str, index: _Index, above: tuple[_Index, ...]) -> Iterator[Object]:
        above = (*above, index)
        for name, is_folder in index.links:
            path = f"{folder}/{name}" if folder else name
            listed = _listed(path, None, None)
            if listed.reason or not is_folder:
                if self._is_new(f"file {path}"):
                    yield listed
            elif name.startswith("."):
                yield Object(path, None, None, "hidden")
            else:
                yield from self._enter(path, above)

    def _enter(self, path: str, above: tuple[_Index, ...]) -> Iterator[Object]:
        if len(above) >= _DEEPEST:
            yield Object(path, None, None, f"a folder deeper than {_DEEPEST} index pages")
            return
        try:
            index = self._index(path)
        except OSError as error:
            yield Object(path, None, None, f"a folder that cannot be read ({error.strerror})")
            return
        if not self._is_new(index.url):
            yield Object(path, None, None, "a folder that was walked already")
        elif index.loops(above):
            yield Object(path, None, None, "a folder with the same links as one above it")
        else:
            yield from self._below(path, index, above)

    def _is_new(self, what: str) -> bool:
        """A digest takes less room than a path."""
        digest = hashlib.blake2b(what.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        new = digest not in self._seen
        self._seen.add(digest)
        return new
