"""`/api/v1`: jobs for other programs."""

import os
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Body, Header, Path, Query, Request
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.responses import FileResponse, JSONResponse, Response

from ...models.errors import ReportError
from ...models.records import JobFilter, ScanFilter
from ...models.states import FailureKind, JobState, Label, ScanState
from ..documents import scan_json, worker_json
from ..status import JobStatus
from . import schemas
from .polling import status_answer
from .problems import Problem
from .report_files import OpenFileResponse, list_report, open_report_file
from .service import Service, Snapshot, service_of

router = APIRouter(prefix="/api/v1")

JobId = Annotated[
    str,
    Path(
        pattern="^[0-9A-Za-z_-]{1,32}$",
        description="A job's id, or its beginning where only one job begins so.",
        examples=["3f0c9a52d1"],
    ),
]
_JSON = "application/json"
_PROBLEM: dict[str, Any] = {
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
}
_STATUS: dict[str, Any] = {
    "description": "The job, as `scanomaly status --json` prints it.",
    "content": {_JSON: {"schema": {"$ref": "#/components/schemas/JobStatus"}}},
}
_BINARY = {"type": "string", "format": "binary"}
_LOCATION: dict[str, Any] = {"description": "Of the job.", "schema": {"type": "string"}}
_SSE_SECONDS = 1.0
_PING_SECONDS = 15.0
_REPORT_POLICY = (
    # A report is a page of its own: what is in it cannot act for whoever looks at it.
    "sandbox allow-scripts allow-downloads allow-popups; default-src 'none'; img-src 'self' data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


_WORDS = {
    401: "A token is needed.",
    403: "Not for this token, or not from this folder.",
    404: "There is no such job or file.",
    408: "The body did not come in time.",
    409: "The job's state does not allow that.",
    413: "The body is too large.",
    416: "There is no such range.",
    421: "Without a token the service answers on this machine only.",
    422: "What is asked for cannot be right.",
    429: "Too many submissions: `Retry-After` says when to try again.",
    503: "The store or the broker cannot be reached.",
}

Answers: TypeAlias = dict[int | str, dict[str, Any]]


def answers(own: Answers, *statuses: int) -> Answers:
    """What an operation may answer: its own, and problems with these statuses or those that every one may have."""
    common = sorted({401, 421, 422, 503, *statuses})
    return {status: {"description": _WORDS[status]} | _PROBLEM for status in common} | own


_STEERING = answers({200: _STATUS}, 403, 404, 408, 409, 413)


@router.get("/jobs", tags=["jobs"], responses=answers({200: {"model": schemas.JobList}}, 404))
async def list_jobs(
    request: Request,
    state: Annotated[list[JobState], Query(description="Only jobs in one of these states.")] = [],  # noqa: B006
    source: Annotated[
        str | None, Query(min_length=1, max_length=200, pattern=r"^[^\x00]+$", description="A part of the source.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[
        str | None, Query(pattern="^[0-9A-Za-z_-]{1,32}$", description="From the page before.")
    ] = None,
) -> Response:
    """List the jobs, newest first."""
    service = service_of(request)
    page = await service.do(lambda: service.jobs.jobs(JobFilter(tuple(state), source), limit, after))
    return JSONResponse({"jobs": [status.to_json() for status in page.jobs], "after": page.after})


@router.post(
    "/jobs",
    tags=["jobs"],
    status_code=201,
    responses=answers({201: _STATUS | {"headers": {"Location": _LOCATION}}}, 403, 408, 413, 429),
)
async def submit(
    request: Request,
    asked: schemas.SubmitRequest,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern="^[!-~]+$",
            description="Sent again with the same key, a submission makes no second job.",
        ),
    ] = None,
) -> Response:
    """Queue a job. The answer comes when its source was looked through, and the first part of it is stored."""
    service = service_of(request)
    options = asked.model_dump(mode="json", exclude={"source"}, exclude_unset=True)
    job = await service.submissions.submit(asked.source, idempotency_key, options)
    service.statuses.forget()
    snapshot = await service.statuses.get(job)
    return status_answer(snapshot, code=201, own={"Location": f"/api/v1/jobs/{job}"})


@router.get(
    "/jobs/{job}",
    tags=["jobs"],
    responses=answers({200: _STATUS, 304: {"description": "It is as it was."}}, 404),
)
async def status(
    request: Request,
    job: JobId,
    if_none_match: Annotated[str | None, Header(description="The ETag of an earlier answer.")] = None,
) -> Response:
    """How far a job is. Ask again with the ETag: while nothing changed, the answer is 304 and empty."""
    return status_answer(await service_of(request).statuses.get(job), if_none_match)


@router.get(
    "/jobs/{job}/events",
    tags=["jobs"],
    response_class=Response,  # FastAPI would write the events itself, each of its own JSON
    responses=answers({200: {"description": "Server-sent events.", "content": {"text/event-stream": {}}}}, 404),
)
async def events(request: Request, job: JobId) -> Response:
    """Follow a job: an event `status` with its JSON each time that it changes, and `end` when it has ended."""
    service = service_of(request)
    first = await service.statuses.get(job)
    return EventSourceResponse(_events(service, first), headers={"X-Accel-Buffering": "no"})


async def _events(service: Service, snapshot: Snapshot) -> AsyncIterator[bytes]:
    sent, quiet = "", 0.0
    while True:
        if snapshot.etag != sent:
            yield format_sse_event(data_str=snapshot.body.decode(), event="status", id=snapshot.etag.strip('"'))
            sent, quiet = snapshot.etag, 0.0
        if snapshot.ended:
            yield format_sse_event(data_str="{}", event="end")
            return
        if quiet >= _PING_SECONDS:
            yield b": still here\n\n"
            quiet = 0.0
        if await service.stopping_within(_SSE_SECONDS):
            return
        quiet += _SSE_SECONDS
        snapshot = await service.statuses.get(snapshot.job)


@router.get("/jobs/{job}/scans", tags=["jobs"], responses=answers({200: {"model": schemas.ScanList}}, 404))
async def scans(
    request: Request,
    job: JobId,
    state: ScanState | None = None,
    label: Literal["normal", "anomaly", "none"] | None = None,
    failure: FailureKind | None = None,
    min_score: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    max_score: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    scorer: Annotated[
        str | None, Query(max_length=32, description="Whose scores; by default the one that ranks.")
    ] = None,
    order: Annotated[
        Literal["submission", "score"],
        Query(description="score: only those that are scored, the most anomalous first."),
    ] = "submission",
    limit: Annotated[int, Query(ge=1, le=5000)] = 100,
    after: Annotated[str | None, Query(max_length=100, description="From the page before.")] = None,
) -> Response:
    """List the scans of a job."""
    service = service_of(request)
    unlabelled = label == "none"
    wanted = ScanFilter(
        state=state,
        label=None if label is None or unlabelled else Label(label),
        unlabelled=unlabelled,
        failure=failure,
        least_score=min_score,
        greatest_score=max_score,
        by_score=order == "score",
    )
    page = await service.do(lambda: service.jobs.scans(job, wanted, limit, after, scorer))
    return JSONResponse({"scans": [scan_json(scan) for scan in page.scans], "after": page.after})


@router.post("/jobs/{job}/cancel", tags=["steering"], responses=_STEERING)
async def cancel(request: Request, job: JobId) -> Response:
    """Stop a job; what is embedded stays in the store."""
    return await _steer(request, lambda service: service.jobs.cancel(job))


@router.post("/jobs/{job}/pause", tags=["steering"], responses=_STEERING)
async def pause(request: Request, job: JobId) -> Response:
    """Let no more batches of a job begin; those that run are finished."""
    return await _steer(request, lambda service: service.jobs.pause(job))


@router.post("/jobs/{job}/resume", tags=["steering"], responses=_STEERING)
async def resume(request: Request, job: JobId) -> Response:
    """Take up a paused job."""
    return await _steer(request, lambda service: service.jobs.resume(job))


@router.post("/jobs/{job}/retry", tags=["steering"], responses=_STEERING)
async def retry(request: Request, job: JobId) -> Response:
    """Queue the scans of a job that failed again; the report will be written again."""
    return await _steer(request, lambda service: service.jobs.retry(job))


@router.post("/jobs/{job}/score", tags=["steering"], responses=_STEERING)
async def score(request: Request, job: JobId, asked: Annotated[schemas.ScoreRequest, Body()]) -> Response:
    """Have the workers score a done job with more scorers, from its stored vectors, and write its report again."""
    return await _steer(request, lambda service: service.jobs.score(job, asked.scorers, asked.headline))


async def _steer(request: Request, action: Callable[[Service], JobStatus]) -> Response:
    service = service_of(request)
    snapshot = Snapshot.of(await service.do(lambda: action(service)))
    service.statuses.forget()
    return status_answer(snapshot)


@router.get("/jobs/{job}/report", tags=["report"], responses=answers({200: {"model": schemas.ReportFiles}}, 404))
async def report(request: Request, job: JobId) -> Response:
    """List the files of a job's report."""
    service = service_of(request)
    found = await service.do(lambda: list_report(service.jobs.report_folder(job)))
    files = [
        {"name": name, "bytes": size, "url": f"/api/v1/jobs/{job}/report/{name}"} for name, size in found.items()
    ]
    if not files:
        raise ReportError(
            f"there is no report of job {job} on this machine: it is not done, or was written elsewhere"
        )
    return JSONResponse({"files": files})


@router.get(
    "/jobs/{job}/report/{name}",
    tags=["report"],
    response_class=FileResponse,
    responses=answers(
        {
            200: {
                "description": "The file.",
                "content": {"*/*": {}},  # no schema: it is no JSON, or one of its own
            },
            206: {"description": "A range of it."},
            304: {"description": "It is as it was."},
        },
        404,
        416,
    ),
)
async def report_file(
    request: Request,
    job: JobId,
    name: Annotated[str, Path(examples=["scores.csv"], description="One of those that `report` lists.")],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A file of a job's report, such as `report.html` or `scores.csv`."""
    service = service_of(request)
    file = await service.do(lambda: open_report_file(service.jobs.report_folder(job), name))
    if file is None:
        return Problem(404, f"the report of job {job} has no such file on this machine")
    info = os.fstat(file.fileno())
    etag = f'"{info.st_mtime_ns:x}-{info.st_size:x}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Security-Policy": _REPORT_POLICY}
    if if_none_match is not None and etag in if_none_match:
        file.close()
        return Response(status_code=304, headers=headers)
    return OpenFileResponse(file, name, headers, info)


@router.get("/workers", tags=["operation"], responses=answers({200: {"model": schemas.WorkerList}}))
async def workers(request: Request) -> Response:
    """List the workers of the last week, and which of them live."""
    service = service_of(request)
    found = await service.do(service.jobs.workers)
    return JSONResponse({"workers": [worker_json(worker) for worker in found]})
