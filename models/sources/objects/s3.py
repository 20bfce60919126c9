"""The driver of `s3://`."""

import asyncio
from typing import Any

import fsspec

from .answers import (
    PAGE,
    Answer,
    Found,
    Object,
    is_object,
    listed_object,
    path_below,
    range_header,
    unlike,
    whole_size,
)
from .urls import Place


class S3:
    """S3, and servers that speak its protocol."""

    def __init__(self, place: Place, answer_seconds: float) -> None:
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
        return await is_object(self.find(""))

    async def page(self, token: str | None) -> tuple[list[Object], str | None]:
        more = {} if token is None else {"ContinuationToken": token}
        told = await self._ask("list_objects_v2", Prefix=self._prefix, MaxKeys=PAGE, **more)
        listed = [
            listed_object(path, entry["Size"], _s3_tag(entry))
            for entry in told.get("Contents", [])
            if (path := path_below(self._prefix, entry["Key"], entry["Size"]))
        ]
        following = told.get("NextContinuationToken") if told.get("IsTruncated") else None
        return listed, unlike(following, token)

    async def find(self, path: str) -> Found:
        told = await self._ask("head_object", Key=self._key(path))
        return Found(told.get("ContentLength"), _s3_tag(told))

    async def get(self, path: str, part: tuple[int, int] | None = None, same: Found | None = None) -> Answer:
        more = {"Range": range_header(part)} if part else {}
        if same and same.tag and same.tag.startswith('"'):
            more["IfMatch"] = same.tag
        told = await self._ask("get_object", Key=self._key(path), **more)
        length, ranged = told.get("ContentLength"), bool(told.get("ContentRange"))
        size = whole_size(told.get("ContentRange")) if ranged else length
        return Answer(Found(size, _s3_tag(told)), length, ranged, told["Body"], told["Body"].close)

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


def _s3_tag(told: dict[str, Any]) -> str | None:
    """The ETag; else the time, whose parts of a second only listings tell."""
    if told.get("ETag"):
        return str(told["ETag"])
    time = told.get("LastModified")
    return None if time is None else str(time.replace(microsecond=0).isoformat())
