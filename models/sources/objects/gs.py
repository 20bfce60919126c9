"""The driver of `gs://`."""

import asyncio
import errno
from typing import Any
from urllib.parse import quote

import fsspec

from .answers import PAGE, Answer, Found, Object, is_object, listed_object, path_below, unlike
from .failures import TryError
from .urls import Place
from .web import Web, session_options


class Gs(Web):
    """Google Cloud Storage: its JSON interface, with the credentials that gcsfs found."""

    def __init__(self, place: Place, answer_seconds: float) -> None:
        self._bucket = place.host
        self._inner = place.inner
        self._prefix = f"{place.inner}/" if place.inner else ""
        self._files: Any = fsspec.filesystem(
            "gs",
            access="read_only",
            skip_instance_cache=True,
            use_listings_cache=False,
            session_kwargs=session_options(answer_seconds),
        )
        self.loop = self._files.loop

    async def is_there(self) -> bool:
        told = await self._list(f"prefix={quote(self._prefix, safe='')}&maxResults=1")
        if told.get("items") or not self._inner:
            return True
        return await is_object(self.find(""))

    async def page(self, token: str | None) -> tuple[list[Object], str | None]:
        query = f"prefix={quote(self._prefix, safe='')}&maxResults={PAGE}"
        told = await self._list(query if token is None else f"{query}&pageToken={quote(token, safe='')}")
        listed = [
            listed_object(path, int(entry["size"]), entry.get("generation"))
            for entry in told.get("items", [])
            if (path := path_below(self._prefix, entry["name"], int(entry["size"])))
        ]
        return listed, unlike(told.get("nextPageToken"), token)

    async def find(self, path: str) -> Found:
        told = await self._json(f"{self._object(path)}?fields=size,generation")
        return Found(int(told["size"]), told.get("generation"))

    async def get(self, path: str, part: tuple[int, int] | None = None, same: Found | None = None) -> Answer:
        url = f"{self._object(path)}?alt=media".replace("/storage/v1/", "/download/storage/v1/", 1)
        if same and same.tag:
            url += f"&ifGenerationMatch={same.tag}"
        # With gzip allowed, what was uploaded compressed comes as it is stored, with its own length.
        response, ranged, size = await self._begin(url, {"Accept-Encoding": "gzip"}, part)
        found = Found(size, response.headers.get("x-goog-generation"))
        return Answer(found, response.content_length, ranged, response.content, response.close)

    def _object(self, path: str) -> str:
        key = self._prefix + path if path else self._inner
        return f"{self._files.base}b/{self._bucket}/o/{quote(key, safe='')}"

    async def _list(self, query: str) -> dict[str, Any]:
        fields = "fields=items(name,size,generation),nextPageToken"
        try:
            return await self._json(f"{self._files.base}b/{self._bucket}/o?{query}&{fields}")
        except TryError as failed:
            if isinstance(failed.error, FileNotFoundError):
                raise TryError(errno.ENOENT, "there is no such bucket") from None
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
