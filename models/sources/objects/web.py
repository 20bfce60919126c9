"""HTTP as web servers and Google speak it: sessions, redirects, proxies, ranges."""

import asyncio
import errno
import urllib.request
from typing import Any
from urllib.parse import urljoin, urlsplit

from .answers import range_header, whole_size
from .failures import TryError, status_failure

_MOST_REDIRECTS = 5


class Web:
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
            if origin(to) != origin(url):  # what is secret is for the first host alone
                all_headers = {
                    name: all_headers[name] for name in ("Accept-Encoding", "Range") if name in all_headers
                }
            url = to
        raise TryError(errno.EIO, "the server redirects too often")

    async def _begin(
        self, url: str, headers: dict[str, str], part: tuple[int, int] | None
    ) -> tuple[Any, bool, int | None]:
        """A response, whether it is the part, and the size of the whole."""
        response = await self._send("GET", url, headers | ({"Range": range_header(part)} if part else {}))
        if response.status != 206:
            return response, False, response.content_length
        told = response.headers.get("Content-Range", "")
        size = whole_size(told)
        if part is None or size is None or not told.startswith(f"bytes {part[0]}-"):
            response.close()
            raise TryError(errno.EIO, "the server sent another range than was asked for")
        return response, True, size


def _accept(response: Any) -> Any:
    if response.status in (200, 206):
        return response
    response.close()
    raise status_failure(response.status, "", response.headers.get("Retry-After", ""))


def _redirected(url: str, location: str) -> str:
    import yarl

    try:
        to = str(yarl.URL(urljoin(url, location)).with_fragment(None))
        scheme, host = urlsplit(to).scheme, urlsplit(to).hostname
    except ValueError:
        scheme, host, to = "", None, ""
    if scheme not in ("http", "https") or not host:
        raise TryError(errno.EIO, "the server redirects to what is no web address")
    if scheme == "http" and url.startswith("https:"):
        raise TryError(errno.EIO, "the server redirects from https to http")
    return to


def origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _proxy(url: str) -> str | None:
    """Of HTTP_PROXY, HTTPS_PROXY and NO_PROXY. aiohttp would read ~/.netrc with them."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def session_options(answer_seconds: float) -> dict[str, Any]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(
        total=None, connect=answer_seconds, sock_connect=answer_seconds, sock_read=answer_seconds
    )
    return {"timeout": timeout, "auto_decompress": False}
