"""The driver of `http://` and `https://`: web servers with index pages."""

import asyncio
import codecs
import errno
from typing import Any
from urllib.parse import quote, unquote

import fsspec

from .answers import PIECE, Answer, Found, Object
from .failures import TryError, cut_short
from .index_pages import Index, Links
from .urls import Place
from .web import Web, session_options

_MOST_INDEX_BYTES = 64 * 1024**2


class Http(Web):
    """A web server with index pages."""

    def __init__(self, place: Place, answer_seconds: float) -> None:
        import yarl

        # With a small host, in ASCII, as redirects and links name it.
        self._root = f"{yarl.URL(place.host).origin()}/{quote(place.inner)}"
        self._base = self._root.rstrip("/")
        self._files: Any = fsspec.filesystem(
            "http",
            skip_instance_cache=True,
            use_listings_cache=False,
            get_client=_web_client,
            client_kwargs=session_options(answer_seconds),
        )
        self.loop = self._files.loop

    async def is_there(self) -> bool:
        try:
            found = await self.find("")
        except TryError as failed:
            if not isinstance(failed.error, IsADirectoryError):
                raise
        else:
            if not found.is_page:
                return True
        await self.index("")
        return True

    async def page(self, token: str | None) -> tuple[list[Object], str | None]:
        raise NotImplementedError("its pages are walked")

    async def find(self, path: str) -> Found:
        url = self._url(path)
        try:
            response = await self._send("HEAD", url)
            size = response.content_length
        except TryError as failed:
            # Not every server, and no signed address, takes HEAD.
            if failed.passing or isinstance(failed.error, FileNotFoundError):
                raise
            size = None
        if size is None:
            try:
                response, _, size = await self._begin(url, {}, (0, 1))
            except TryError as failed:
                if failed.error.errno != errno.ERANGE:
                    raise
                return Found(0, None)
        response.close()
        return _web_found(response, url, size)

    async def get(self, path: str, part: tuple[int, int] | None = None, same: Found | None = None) -> Answer:
        url = self._url(path)
        response, ranged, size = await self._begin(url, {}, part)
        try:
            found = _web_found(response, url, size)
        except TryError:
            response.close()
            raise
        return Answer(found, response.content_length, ranged, response.content, response.close)

    async def index(self, folder: str) -> Index:
        """The links of a folder's index page that stay below it."""
        response = await self._send("GET", self._url(folder).rstrip("/") + "/", {"Accept": "text/html"})
        try:
            at = str(response.url)
            if not unquote(at).startswith(unquote(f"{self._base}/")):
                raise TryError(errno.EIO, "its index page is elsewhere")
            if not _is_page(response) or response.headers.get("Content-Encoding", "identity") != "identity":
                raise TryError(errno.ENOTDIR, "the server shows no index page of it")
            links = Links(at)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            size = 0
            while data := await response.content.read(PIECE):
                size += len(data)
                if size > _MOST_INDEX_BYTES:
                    raise TryError(errno.EFBIG, "its index page is too large")
                links.feed(decoder.decode(data))
        finally:
            response.close()
        if response.content_length not in (None, size):
            raise cut_short(size, response.content_length)
        return Index(at, sorted(links.below))

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


def _web_found(response: Any, url: str, size: int | None) -> Found:
    if str(response.url) == f"{url}/":
        raise TryError(errno.EISDIR, "it is a folder, with an index page")
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
    return Found(size, tag, _is_page(response))
