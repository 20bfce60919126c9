"""What every request passes first: host, size, origin, token; and the headers that every answer gets."""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Access, Role, TooManyTokensError, is_followed_link, is_loopback, made_elsewhere
from .problems import HEADERS, Problem

MOST_BYTES = 256 * 1024
"""Of the body of a request: a submission names a folder, it does not bring it."""
_MOST_DISCARDED = 16 * 1024 * 1024
"""Of a body that is too large: who is cut off while sending does not hear why."""
_BODY_SECONDS = 30.0

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/login", "/static/style.css", "/static/page.js"})
"""For those without a token too."""
_RAW_HEADERS = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in HEADERS.items()]


class Guard:
    """Lets through what may go through, with its role in `scope["state"]["role"]`."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                message["headers"] += [header for header in _RAW_HEADERS if header[0] not in own]
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is None and scope["method"] not in _SAFE_METHODS:
            body = await _read(receive)
            if isinstance(body, bytes):
                receive = _replay(body, receive)
            else:
                refusal = body
        await (refusal or self._app)(scope, receive, send_safely)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        if self._access.open and not _names_this_machine(headers.get("host", "")):
            # A page elsewhere whose name was made to lead here (DNS rebinding) would count as a page of ours.
            return Problem(
                421, "without a token the service answers on this machine only: use 127.0.0.1 or localhost"
            )
        client = scope.get("client")
        try:
            role = self._access.role(headers, client[0] if client else "", scope.get("scheme") == "https")
        except TooManyTokensError as error:
            return Problem(429, str(error), headers={"Retry-After": f"{error.seconds:.0f}"})
        scope.setdefault("state", {})["role"] = role
        return self._refusal_of_role(scope, headers, role)

    def _refusal_of_role(self, scope: Scope, headers: Mapping[str, str], role: Role | None) -> Response | None:
        safe = scope["method"] in _SAFE_METHODS
        if made_elsewhere(headers) and not (safe and is_followed_link(headers)):
            return Problem(403, "a page of another site made this request")
        if scope["path"] in OPEN_PATHS:
            return None
        if role is None:
            return _unauthorized(scope, headers)
        if not safe and role != Role.FULL and scope["path"] != "/logout":
            return Problem(403, "this token may only look: SCANOMALY_API_READ_TOKEN is for dashboards")
        return None


def _names_this_machine(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _unauthorized(scope: Scope, headers: Mapping[str, str]) -> Response:
    if "text/html" in headers.get("accept", "") and not scope["path"].startswith("/api/v1/jobs/"):
        return RedirectResponse("/login", 303)
    return Problem(
        401,
        "a token is needed: send it as `Authorization: Bearer TOKEN`",
        headers={"WWW-Authenticate": 'Bearer realm="scanomaly"'},
    )


async def _read(receive: Receive) -> bytes | Response:
    """The whole body, or why not."""
    parts: list[bytes] = []
    left = MOST_BYTES
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return Response(status_code=400)
                part = message.get("body", b"")
                left -= len(part)
                last = not message.get("more_body", False)
                if left < 0 and (last or left < -_MOST_DISCARDED):
                    return _too_large()
                if left >= 0:
                    parts.append(part)
                    if last:
                        return b"".join(parts)
    except TimeoutError:
        if left < 0:
            return _too_large()
        return Problem(408, f"the body did not come within {_BODY_SECONDS:.0f} s", headers={"Connection": "close"})


def _too_large() -> Problem:
    return Problem(413, f"a request may have {MOST_BYTES} bytes", headers={"Connection": "close"})


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body to whoever asks first."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
