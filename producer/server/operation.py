"""For whoever runs the service: is it up, is it ready, and what it counts."""

from fastapi import APIRouter, Request
from prometheus_client.exposition import choose_encoder
from starlette.responses import JSONResponse, Response

from . import schemas
from .api import answers
from .service import service_of

router = APIRouter(tags=["operation"])


@router.get("/healthz", responses=answers({200: {"model": schemas.Health}}))
async def healthz() -> Response:
    """Whether the service itself answers. Needs no token."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/readyz",
    responses=answers(
        {
            200: {"model": schemas.Readiness},
            503: {"model": schemas.Readiness, "description": "Something is missing: see `checks`."},
        }
    ),
)
async def readyz(request: Request) -> Response:
    """Whether jobs that are submitted now would be done: store, broker, a live worker. Needs no token."""
    readiness = await service_of(request).readiness.get(None)
    return JSONResponse(readiness.to_json(), 200 if readiness.ready else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses=answers(
        {200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    ),
)
async def metrics(request: Request) -> Response:
    """What Prometheus scrapes."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    service = service_of(request)
    text = await service.do(lambda: encode(service.registry))
    return Response(text, media_type=None, headers={"Content-Type": content_type})
