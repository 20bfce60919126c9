"""The app: routes, errors and the guard, put together."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ...models.settings import Settings
from ...models.store import Store
from . import api, operation, page, schemas
from .access import Access
from .guard import Guard
from .polling import Polling
from .problems import add_handlers
from .service import Service

_DESCRIPTION = """Submits and follows jobs of Scanomaly, which finds the scans in a folder that do not look normal.

Errors are problem documents (RFC 9457). Lists come in pages: send `after` of one for the next."""


def make_app(settings: Settings) -> FastAPI:
    """The service's app.

    Raises:
        UsageError: a token or a setting cannot be right.
        StoreUnreachableError, SchemaError: the store cannot be used.
    """
    access = Access(settings)
    store = Store.open(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = Service(settings, access, store)
        yield
        await app.state.service.close()

    app = FastAPI(
        title="Scanomaly",
        description=_DESCRIPTION,
        version=version("scanomaly"),
        lifespan=lifespan,
        docs_url=None,  # both load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in (api.router, operation.router, page.router):
        app.include_router(router)
    add_handlers(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(Polling)
    app.add_middleware(Guard, access=access)  # the last one is the first that a request passes
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's own, with the status's schema, the problems and the token, which it cannot know."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document["components"]
        components["schemas"]["JobStatus"] = _status_schema()
        components["schemas"]["ProblemDocument"] = schemas.ProblemDocument.model_json_schema(
            ref_template="#/components/schemas/{model}"
        )
        components["schemas"] |= components["schemas"]["ProblemDocument"].pop("$defs")
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}, {}]
        app.openapi_schema = document
    return app.openapi_schema


def _status_schema() -> dict[str, Any]:
    text = files("scanomaly.producer").joinpath("status.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    del schema["$schema"]
    return schema
