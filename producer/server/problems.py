"""Errors as problem documents (RFC 9457)."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from ...models.errors import (
    BrokerUnreachableError,
    JobNotFoundError,
    JobStateError,
    KeyReusedError,
    NotAllowedError,
    ReportError,
    ScanomalyError,
    SchemaError,
    StoreRefusedError,
    StoreUnreachableError,
)
from ..remote import problem_type
from .submissions import NoPlaceError, TooManySubmissionsError

logger = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[ScanomalyError], int], ...] = (
    (JobNotFoundError, 404),
    (ReportError, 404),
    (KeyReusedError, 422),
    (JobStateError, 409),
    (NotAllowedError, 403),
    (BrokerUnreachableError, 503),
    (StoreUnreachableError, 503),
    (StoreRefusedError, 503),
    (SchemaError, 503),
    (NoPlaceError, 503),
    (TooManySubmissionsError, 429),
)
_WHAT_IS_ASKED_FOR = 422

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
"""Those of every answer: `Guard` adds them, but not to what is answered around it."""


class Problem(Response):
    """A problem document, with the members that RFC 9457 names; `errors` says what of a request is wrong."""

    media_type = "application/problem+json"

    def __init__(
        self,
        status: int,
        detail: str,
        kind: str = "about:blank",
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        document: dict[str, Any] = {
            "type": kind,
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
        }
        if errors:
            document["errors"] = errors
        # As ASCII: a part of what was sent, which it may quote, may be no valid Unicode.
        super().__init__(json.dumps(document), status, dict(headers or {}))


def problem_of(error: ScanomalyError) -> Problem:
    """An error of the tree as a problem."""
    default = 500 if type(error) is ScanomalyError else _WHAT_IS_ASKED_FOR
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), default)
    headers = {"Retry-After": "5"} if status == 503 else {}
    if isinstance(error, TooManySubmissionsError):
        headers = {"Retry-After": f"{error.seconds:.0f}"}
    return Problem(status, str(error), problem_type(type(error)), headers)


def add_handlers(app: FastAPI) -> None:
    """Have an app answer every error with a problem."""

    @app.exception_handler(ScanomalyError)
    async def known(_request: Request, error: ScanomalyError) -> Problem:
        return problem_of(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Problem:
        errors = [{"where": "/".join(map(str, part["loc"])), "detail": part["msg"]} for part in error.errors()]
        first = f"{errors[0]['where']}: {errors[0]['detail']}" if errors else "it cannot be read"
        return Problem(_WHAT_IS_ASKED_FOR, f"the request is not as it should be: {first}", errors=errors)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Problem:
        if error.status_code == 400:  # FastAPI's, of a body that is no text; of one that is no JSON it says 422
            return Problem(_WHAT_IS_ASKED_FOR, "the request is not as it should be: its body cannot be read")
        if error.status_code == 405:
            detail = f"{request.method} is not for {request.url.path}"
            return Problem(405, detail, headers={"Allow": _methods(request)})
        details = {404: f"there is nothing at {request.url.path}: /openapi.json lists what there is"}
        return Problem(error.status_code, details.get(error.status_code, str(error.detail)), headers=error.headers)

    @app.exception_handler(Exception)
    async def internal(request: Request, error: Exception) -> Problem:
        logger.error("internal error at %s %s", request.method, request.url.path, exc_info=error)
        return Problem(500, "internal error: the service's log says more", headers=HEADERS)


def _methods(request: Request) -> str:
    """What a path takes: the router names only what the first of its routes does."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] == Match.FULL for route in request.app.routes)

    return ", ".join(filter(takes, ("GET", "HEAD", "POST")))
