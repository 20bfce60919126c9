"""The pages for a person: jobs with live progress, one job, and a way in for those with a token.

All HTML is made here. The script only puts newer parts of a page in the place of older ones.
"""

import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.sse import EventSourceResponse, format_sse_event
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from ...models.errors import JobNotFoundError, ScanomalyError
from ...models.records import Job, JobFilter, ScanFilter
from ...models.scorers import DEFAULT_SCORERS, workable_scorers
from ...models.states import JobState
from ..documents import worker_state
from ..status import JobStatus, status_of
from .access import Role, TooManyTokensError, cookie_name
from .choices import encoder_name, find_choices
from .problems import problem_of
from .report_files import list_report
from .service import Service, service_of
from .sessions import SESSION_SECONDS
from .shared import Shared
from .words import page_words

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
_Again = Annotated[str | None, Query(pattern="^[0-9A-Za-z_-]{1,32}$")]
_After = Annotated[str | None, Query(pattern="^[0-9A-Za-z_-]{1,32}$")]


class _Given(NamedTuple):
    """What stands in the fields of the form."""

    source: str = ""
    normal: str = ""
    encoder: str = ""
    scorer: str = DEFAULT_SCORERS[0]
    again: str = ""
    """The job whose other options are taken."""


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
async def index(request: Request, state: _State = None, after: _After = None, again: _Again = None) -> Response:
    """With `again`, the form has what that job was asked for."""
    if again is None:
        return await _index(request, state, after)
    service = service_of(request)
    try:
        job = await service.do(lambda: service.store.find_job(again))
    except JobNotFoundError as error:
        return _no_job(error)
    return await _index(request, state, after, given=_given_of(job))


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
    again: Annotated[str, Form(max_length=32)] = "",
    key: Annotated[str, Form(max_length=255)] = "",
) -> Response:
    """The form's fields are checked where the API's are: by the process that takes the submission."""
    service = service_of(request)
    given = _Given(source.strip(), normal.strip(), encoder.strip(), scorer.strip(), again.strip())
    try:
        options = await service.do(lambda: _options(service, given))
        job = await service.submissions.submit(given.source, key if key.isalnum() else None, options)
    except ScanomalyError as error:
        return await _index(request, None, None, problem_of(error).status_code, str(error), given)
    views_of(service).forget()
    return RedirectResponse(f"/jobs/{job}", 303)


@router.get("/jobs/{job}/cancel")
async def ask_cancel(request: Request, job: _JobId) -> Response:
    """What is cancelled is not taken up again: so it is asked for."""
    service = service_of(request)
    try:
        status = await service.do(lambda: service.jobs.status(job))
    except JobNotFoundError as error:
        return _no_job(error)
    if status.state.ended or _role(request) != Role.FULL:
        return RedirectResponse(f"/jobs/{status.job}", 303)
    return _page("cancel.html", status=status)


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
    if service_of(request).access.open:
        return RedirectResponse("/", 303)
    return _page("login.html", wrong=False, error=None)


@router.post("/login")
async def login(request: Request, token: Annotated[str, Form(max_length=1000)] = "") -> Response:
    access = service_of(request).access
    try:
        role = access.role_of_token(token.strip(), request.client.host if request.client else "")
    except TooManyTokensError as error:
        wait = {"Retry-After": f"{error.seconds:.0f}"}
        return _page("login.html", 429, headers=wait, wrong=False, error=str(error))
    if role is None:
        return _page("login.html", 401, wrong=True, error=None)
    answer = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    # Lax: who follows a link to a job, from a message say, is not asked again.
    answer.set_cookie(
        cookie_name(secure),
        access.begin_session(role),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=secure,
    )
    return answer


@router.post("/logout")
async def logout(request: Request) -> Response:
    service = service_of(request)
    secure = request.url.scheme == "https"
    await service.do(lambda: service.access.end_session(request.headers, secure))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(cookie_name(secure), secure=secure, httponly=True, samesite="lax")
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
    given: _Given | None = None,
) -> Response:
    service = service_of(request)
    view = _View(_role(request), state=state, after=after)
    choices = await service.do(lambda: find_choices(service.store))
    return _page(
        "index.html",
        code,
        view=view,
        parts=await views_of(service).get(view),
        error=error,
        roots=service.settings.api_roots,
        given=given or _Given(encoder=choices.encoder),
        choices=choices,
        key=secrets.token_hex(16),
        states=JobState,
        open=service.access.open,
        live=f"/live?{request.url.query}",
    )


def _given_of(job: Job) -> _Given:
    """The fields of the form with what a job was asked for, whose paths may be shown."""
    options = job.options or {}
    source = "" if job.path_key is not None else job.source
    normal = "" if job.path_key is not None else ", ".join(options.get("normal", ()))
    return _Given(source, normal, _asked_encoder(job), job.scorers[0], job.id)


def _asked_encoder(job: Job) -> str:
    return str((job.options or {}).get("encoder") or encoder_name(job.encoder))


def _options(service: Service, given: _Given) -> dict[str, Any]:
    """What the form asks for: its fields, and what it has no fields for as the job had that is run again.

    Raises:
        JobNotFoundError: there is no such job.
    """
    options: dict[str, Any] = {}
    encoder = given.encoder or find_choices(service.store).encoder
    scorers = [given.scorer or DEFAULT_SCORERS[0]]
    if given.again:
        job = service.store.find_job(given.again)
        options |= job.options or {}
        if encoder != _asked_encoder(job):
            options.pop("weights", None)  # they are another encoder's
        scorers += [name for name in options.get("scorers", ()) if name != scorers[0]]
    normal = [part.strip() for part in given.normal.split(",") if part.strip()]
    options |= {"normal": normal, "encoder": encoder, "scorers": scorers}
    return options


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
    job = service.store.find_job(view.job)
    status = status_of(service.store, job)
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
        files=_files(service, status),
        more_scorers=[name for name in workable_scorers(job.encoder, stored=True) if name not in status.scorers],
        again=_can_run_again(service, job),
    )


def _can_run_again(service: Service, job: Job) -> bool:
    """Whether it is known what was asked for, and the service takes scans from there."""
    source = PurePosixPath(job.source)
    return (
        job.options is not None
        and job.path_key is None
        and any(source.is_relative_to(root) for root in service.settings.api_roots)
    )


def _files(service: Service, status: JobStatus) -> list[str]:
    """The files of a job's report that are on this machine."""
    return [] if status.report is None else list(list_report(service.settings.local_path(status.report)))


def _page(name: str, code: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> Response:
    return HTMLResponse(_TEMPLATES.get_template(name).render(**values), code, headers)


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
    "words": page_words,
    "worker_state": worker_state,
}
