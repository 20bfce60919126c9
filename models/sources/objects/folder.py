"""Objects below a URL, as if it were a folder."""

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, BinaryIO, cast
from urllib.parse import unquote

from ...errors import SourceError, UsageError
from .ahead import AHEAD_BYTES, ReadAhead
from .answers import Answer, Driver, Fetched, Object, Version
from .connection import Connection
from .failures import RangeError, cut_short
from .http import Http
from .index_pages import WebWalk
from .reading import Claim, RangeFile
from .urls import CREDENTIALS, check_driver, check_path, parse

BLOCK = 512 * 1024
"""Bytes that an opened object is read by."""
_CHECK_SECONDS = 15.0  # a person who mistyped a host waits for it


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
        self._place = parse(url)
        self.url = self._place.url
        """The URL, without a slash at its end."""
        self.name = self._place.url
        """What messages call it."""
        self.connection = Connection(self._place, seconds, answer_seconds or min(20.0, seconds / 3))
        """What asks its server."""
        self._seconds = seconds
        self._answer_seconds = answer_seconds
        check_driver(self._place)

    def check(self) -> None:
        """Ask the server whether something is there.

        Raises:
            UsageError: there is nothing, or it may not be read with these credentials.
            SourceError: the server cannot be reached.
        """
        try:
            there = self.connection.retry(
                lambda: self.connection.run(self.connection.driver.is_there()), min(self._seconds, _CHECK_SECONDS)
            )
        except FileNotFoundError as error:
            raise UsageError(f"{self.name} is not there ({error.strerror})") from None
        except PermissionError as error:
            hint = CREDENTIALS[self._place.driver]
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
            return not self.connection.retry(lambda: self.connection.run(self.connection.driver.find(""))).is_page
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
        driver = self.connection.driver
        return WebWalk(self.connection, driver).walk() if isinstance(driver, Http) else self._walk_pages(driver)

    def _walk_pages(self, driver: Driver) -> Iterator[Object]:
        token: str | None = None
        while True:
            listed, following = self.connection.retry(lambda: self.connection.run(driver.page(token)))  # noqa: B023
            yield from listed
            if following is None:
                return
            token = following

    def version(self, path: str) -> Version:
        """What tells whether an object has changed: one request, without its bytes."""
        check_path(path)
        return self.connection.retry(lambda: self.connection.run(self.connection.driver.find(path))).version()

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
        check_path(path)
        claim = Claim(reserve, max_bytes)

        def attempt() -> Fetched:
            answer = self.connection.run(self.connection.driver.get(path))
            try:
                if answer.length is None:
                    data = self._of_unknown_length(answer, claim)
                else:
                    claim.up_to(answer.length)
                    data = self.connection.run(answer.whole())
            finally:
                self.connection.run(answer.close())
            return Fetched(data, answer.found.version())

        return self.connection.retry(attempt)

    def read(
        self, path: str, reserve: Callable[[int], None] = lambda size: None, max_bytes: int | None = None
    ) -> bytes:
        """The bytes alone of what `fetch` gives."""
        return self.fetch(path, reserve, max_bytes).data

    def head(self, path: str, count: int) -> bytes:
        """The first bytes of an object, `count` at most, with one request."""
        check_path(path)

        def attempt() -> bytes:
            answer = self.connection.run(self.connection.driver.get(path, (0, count)))
            try:
                return self.connection.run(answer.first(count))
            finally:
                self.connection.run(answer.close())

        try:
            return self.connection.retry(attempt)
        except RangeError:  # of an empty object
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
        check_path(path)

        def attempt() -> BinaryIO:
            answer = self.connection.run(self.connection.driver.get(path, (0, BLOCK)))
            try:
                size = answer.found.size
                if size is None or (size > BLOCK and not answer.ranged):
                    return self._copy(answer, Claim(lambda size: None, max_bytes))
                first = self.connection.run(answer.whole())
                if size <= len(first):
                    return io.BytesIO(first)
                return cast(
                    BinaryIO, io.BufferedReader(RangeFile(self.connection, path, answer.found, first), BLOCK)
                )
            finally:
                self.connection.run(answer.close())

        try:
            return self.connection.retry(attempt)
        except RangeError:
            return io.BytesIO(b"")

    def read_ahead(self, paths: Sequence[str], at_once: int = 16, max_ahead_bytes: int = AHEAD_BYTES) -> ReadAhead:
        """Begin to read objects that will be wanted: see `ReadAhead`."""
        return ReadAhead(self, paths, at_once, max_ahead_bytes)

    def _of_unknown_length(self, answer: Answer, claim: Claim) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := self.connection.run(answer.piece()):
            size += len(part)
            claim.up_to(size)
            parts.append(part)
        return b"".join(parts)

    def _copy(self, answer: Answer, claim: Claim) -> BinaryIO:
        if answer.length is not None:
            claim.up_to(answer.length)
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            size = 0
            while part := self.connection.run(answer.piece()):
                size += len(part)
                claim.up_to(size)
                file.write(part)
            if answer.length not in (None, size):
                raise cut_short(size, answer.length)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return cast(BinaryIO, file)
