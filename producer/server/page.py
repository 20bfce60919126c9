"""The pages for a person: jobs with live progress, one job, and a way in for those with a token.

All HTML is made here. The script only puts newer parts of a page in the place of older ones.
"""

import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.sse import EventSourceResponse, format_sse_event
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from ...models.encoders import DEFAULT_ENCODER, OFFLINE_ENCODER
from ...models.errors import JobNotFoundError, ScanomalyError
from ...models.records import JobFilter, ScanFilter
from ...models.reports import REPORT_FILES
from ...models.scorers import DEFAULT_SCORERS, SCORERS
from ...models.states import JobState
from ..documents import worker_state
from ..status import JobStatus
from .access import COOKIE, SESSION_SECONDS, Role
from .problems import problem_of
from .service import Service, service_of
from .shared import Shared

router = APIRouter(include_in_schema=False)

_JOBS_SHOWN = 20
_FAILURES_SHOWN = 20
_LIVE_SECONDS = 1.0
_IDLE_SECONDS = 5.0
"""While nothing has changed for a while: most pages that are left open show jobs that have ended."""
_IDLE_AFTER_SECONDS = 60.0
_PING_SECONDS = 15.0

_STATIC = StaticFiles(packages=[("scanomaly.producer.server", "static")])

_JobId = Annotated[str, Path(pattern="^[0-9A-Za-z_-]{1,32}$")]
_State = Annotated[JobState | None, Query()]
_After = Annotated[str | None, Query(pattern="^[0-9A-Za-z_-]{1,32}$")]


class _View(NamedTuple):
    """What of the live part of a page differs from one who looks at it to the next."""

    role: Role
    job: str | None = None
    state: JobState | None = None
    after: str | None = None


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    return await _STATIC.get_response(name, request.scope)


@router.get("/")
async def index(request: Request, state: _State = None, after: _After = None) -> Response:
    return await _index(request, state, after)


@router.get("/live")
async def live(request: Request, state: _State = None, after: _After = None) -> Response:
    return await _live(request, _View(_role(request), state=state, after=after))


@router.get("/jobs/{job}")
async def job_page(request: Request, job: _JobId) -> Response:
    return await _job(request, job)


@router.get("/jobs/{job}/live")
async def live_job(request: Request, job: _JobId) -> Response:
    return await _live(request, _View(_role(request), job))


@router.post("/jobs")
async def submit(
    request: Request,
    source: Annotated[str, Form(max_length=4096)] = "",
    normal: Annotated[str, Form(max_length=1000)] = "",
    encoder: Annotated[str, Form(max_length=200)] = "",
    scorer: Annotated[str, Form(max_length=200)] = "",
    key: Annotated[str, Form(max_length=255)] = "",
) -> Response:
    """The form's fields are checked where the API's are: by the process that takes the submission."""
    service = service_of(request)
    options: dict[str, Any] = {}
    if normal.strip():
        options["normal"] = [part.strip() for part in normal.split(",") if part.strip()]
    if encoder.strip():
        options["encoder"] = encoder.strip()
    if scorer.strip():
        options["scorers"] = [scorer.strip()]
    try:
        job = await service.submissions.submit(source.strip(), key if key.isalnum() else None, options)
    except ScanomalyError as error:
        given = {"source": source, "normal": normal, "encoder": encoder, "scorer": scorer}
        return await _index(request, None, None, problem_of(error).status_code, str(error), given)
    views_of(service).forget()
    return RedirectResponse(f"/jobs/{job}", 303)


@router.post("/jobs/{job}/score")
async def score(request: Request, job: _JobId, scorer: Annotated[str, Form(max_length=200)]) -> Response:
    return await _steer(request, job, lambda service: service.jobs.score(job, [scorer]))


@router.post("/jobs/{job}/{action}")
async def steer(request: Request, job: _JobId, action: str) -> Response:
    actions: dict[str, Callable[[Service], object]] = {
        "cancel": lambda service: service.jobs.cancel(job),
        "pause": lambda service: service.jobs.pause(job),
        "resume": lambda service: service.jobs.resume(job),
        "retry": lambda service: service.jobs.retry(job),
    }
    if action not in actions:
        raise JobNotFoundError(f"{action!r} is not what can be done with a job")
    return await _steer(request, job, actions[action])


@router.get("/login")
async def ask_token(request: Request) -> Response:
    return RedirectResponse("/", 303) if service_of(request).access.open else _page("login.html", wrong=False)


@router.post("/login")
async def login(request: Request, token: Annotated[str, Form(max_length=1000)] = "") -> Response:
    access = service_of(request).access
    role = access.role_of_token(token.strip())
    if role is None:
        return _page("login.html", 401, wrong=True)
    answer = RedirectResponse("/", 303)
    # Lax: who follows a link to a job, from a message say, is not asked again.
    answer.set_cookie(
        COOKIE,
        access.session(role),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
async def logout() -> Response:
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


async def _steer(request: Request, job: str, action: Callable[[Service], object]) -> Response:
    service = service_of(request)
    try:
        await service.do(lambda: action(service))
    except JobNotFoundError as error:
        return _no_job(error)
    except ScanomalyError as error:
        return await _job(request, job, problem_of(error).status_code, str(error))
    service.statuses.forget()
    views_of(service).forget()
    return RedirectResponse(f"/jobs/{job}", 303)


async def _index(
    request: Request,
    state: JobState | None,
    after: str | None,
    code: int = 200,
    error: str | None = None,
    given: dict[str, str] | None = None,
) -> Response:
    service = service_of(request)
    view = _View(_role(request), state=state, after=after)
    defaults = {"source": "", "normal": "", "encoder": "", "scorer": DEFAULT_SCORERS[0]}
    return _page(
        "index.html",
        code,
        view=view,
        parts=await views_of(service).get(view),
        error=error,
        roots=service.settings.api_roots,
        given=given or defaults,
        encoders=(DEFAULT_ENCODER, OFFLINE_ENCODER),
        scorers=SCORERS,
        key=secrets.token_hex(16),
        states=JobState,
        open=service.access.open,
        live=f"/live?{request.url.query}",
    )


async def _job(request: Request, job: str, code: int = 200, error: str | None = None) -> Response:
    service = service_of(request)
    view = _View(_role(request), job)
    try:
        parts = await views_of(service).get(view)
    except JobNotFoundError as missing:
        return _no_job(missing)
    return _page(
        "job.html", code, view=view, parts=parts, error=error, open=service.access.open, live=f"/jobs/{job}/live"
    )


def _no_job(error: JobNotFoundError) -> Response:
    return _page("error.html", 404, error=str(error))


async def _live(request: Request, view: _View) -> Response:
    service = service_of(request)
    first = await views_of(service).get(view)
    return EventSourceResponse(_parts(service, view, first), headers={"X-Accel-Buffering": "no"})


async def _parts(service: Service, view: _View, parts: str) -> AsyncIterator[bytes]:
    sent, quiet, silent = "", 0.0, 0.0
    while True:
        if parts != sent:
            yield format_sse_event(data_str=parts, event="parts")
            sent, quiet, silent = parts, 0.0, 0.0
        elif silent >= _PING_SECONDS:
            yield b": still here\n\n"
            silent = 0.0
        pause = _LIVE_SECONDS if quiet < _IDLE_AFTER_SECONDS else _IDLE_SECONDS
        if await service.stopping_within(pause):
            return
        quiet += pause
        silent += pause
        parts = await views_of(service).get(view)


def views_of(service: Service) -> Shared[_View, str]:
    """The live parts of pages, as HTML; made once for all who look at the same."""
    if service.views is None:
        service.views = service.shared(lambda view: _render(service, view), _LIVE_SECONDS / 2)
    return service.views


def _render(service: Service, view: _View) -> str:
    if view.job is None:
        states = () if view.state is None else (view.state,)
        page = service.jobs.jobs(JobFilter(states), _JOBS_SHOWN, view.after)
        return _TEMPLATES.get_template("jobs.html").render(
            view=view,
            page=page,
            roots=service.settings.api_roots,
            reports={status.job for status in page.jobs if "report.html" in _files(service, status)},
            workers=[worker for worker in service.jobs.workers() if worker_state(worker) != "stopped"],
        )
    status = service.jobs.status(view.job)
    kinds = service.store.lists.failures(status.job) if status.scans.failed else {}
    # Kind by kind: an index has these, while the first of all may lie behind a million scans that did not fail.
    failed = [
        scan
        for kind in kinds
        for scan in service.jobs.scans(status.job, ScanFilter(failure=kind), _FAILURES_SHOWN).scans
    ]
    return _TEMPLATES.get_template("one_job.html").render(
        view=view,
        status=status,
        failed=sorted(failed, key=lambda scan: scan.id)[:_FAILURES_SHOWN],
        kinds=kinds,
        files=list(_files(service, status)),
        more_scorers=[name for name in SCORERS if name not in status.scorers],
    )


def _files(service: Service, status: JobStatus) -> Iterator[str]:
    """The files of a job's report that are on this machine."""
    if status.report is not None:
        folder = service.settings.local_path(status.report)
        yield from (name for name in REPORT_FILES if (folder / name).is_file())


def _page(name: str, code: int = 200, **values: Any) -> Response:
    return HTMLResponse(_TEMPLATES.get_template(name).render(**values), code)


def _role(request: Request) -> Role:
    role: Role = request.state.role
    return role


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _duration(seconds: float) -> str:
    """As a person says it: 42 s, 7 min, 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _last_part(source: str) -> str:
    """What a person calls a source: the name of the folder, say."""
    return PurePosixPath(source).name or source


def _code(text: str) -> Markup:
    """A sentence with what it has in `backticks` marked as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


_TEMPLATES = Environment(
    loader=PackageLoader("scanomaly.producer.server"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "number": _number,
    "duration": _duration,
    "last_part": _last_part,
    "code": _code,
    "worker_state": worker_state,
}
