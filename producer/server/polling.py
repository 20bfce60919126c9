"""The question that programs ask most, answered without FastAPI's way to a route, which takes most of the time."""

import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ...models.errors import ScanomalyError
from .service import Service, Snapshot

_STATUS = re.compile(r"/api/v1/jobs/([0-9A-Za-z_-]{1,32})")


class Polling:
    """Answers `GET /api/v1/jobs/JOB` as its route would. Whatever is not plain is left to that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _STATUS.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if asked is None:
            await self._app(scope, receive, send)
            return
        service: Service = scope["app"].state.service
        try:
            snapshot = await service.statuses.get(asked[1])
        except ScanomalyError:
            await self._app(scope, receive, send)
            return
        known = Headers(scope=scope).get("if-none-match")
        await status_answer(snapshot, known)(scope, receive, send)


def status_answer(
    snapshot: Snapshot, known: str | None = None, code: int = 200, own: Mapping[str, str] | None = None
) -> Response:
    """A job's status, for a client that knows an earlier answer by its ETag, or none; with headers of its own."""
    headers = {"ETag": snapshot.etag, "Cache-Control": "no-cache", **(own or {})}
    if known is not None and snapshot.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(snapshot.body, code, headers, media_type="application/json")
