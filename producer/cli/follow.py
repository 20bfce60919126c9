"""Commands that look at jobs and steer them, through the store or through the HTTP service."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import cloup

from ...models.errors import UsageError
from ...models.records import JobFilter
from ...models.settings import Settings
from ...models.states import JobState
from ..documents import worker_json
from ..status import JobStatus
from .options import AS_JSON, DEBUG, SERVER, examples
from .output import finish, follow_job, open_jobs, open_store, print_json, print_status, say_notes
from .terminal import print_table
from .texts import JOB_HEADERS, JOB_NUMBERS, JOB_SPARED, WORKER_HEADERS, WORKER_SPARED, job_row, worker_row

if TYPE_CHECKING:
    from ..jobs import Jobs


@cloup.command(epilog=examples("scanomaly status JOB", "scanomaly status JOB --json"))
@click.argument("job")
@SERVER
@AS_JSON
@DEBUG
def status(job: str, server: str | None, as_json: bool) -> int:
    """Tell how far a job is."""
    with open_jobs(server, looks=True) as jobs:
        print_status(jobs.status(job), as_json)
    return 0


@cloup.command(epilog=examples("scanomaly watch JOB"))
@click.argument("job")
@SERVER
@AS_JSON
@DEBUG
def watch(job: str, server: str | None, as_json: bool) -> int:
    """Follow a job to its end, and see to it that its calls are not lost."""
    settings = Settings.from_environment()
    with open_jobs(server) as jobs, _reconciling(settings, server):
        job_id = jobs.status(job).job
        ended = follow_job(jobs, job_id)
        return finish(ended, as_json, open_it=False)


@contextmanager
def _reconciling(settings: Settings, server: str | None) -> Iterator[None]:
    """Nothing where a service is asked: only who has the store and the broker can send lost calls again."""
    from ..local import reconciling_calls

    if server or settings.server_url:
        yield
        return
    with open_store(settings) as store, reconciling_calls(settings, store):
        yield


@cloup.command("jobs", epilog=examples("scanomaly jobs", "scanomaly jobs --state failed --limit 5"))
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, newest first.")
@click.option(
    "--state", "states", multiple=True, type=click.Choice([state.value for state in JobState]), help="Only these."
)
@SERVER
@AS_JSON
@DEBUG
def list_jobs(limit: int, states: tuple[str, ...], server: str | None, as_json: bool) -> int:
    """List the jobs, newest first."""
    with open_jobs(server, looks=True) as jobs:
        found = _first(jobs, JobFilter(tuple(JobState(state) for state in states)), limit)
    if as_json:
        print_json({"jobs": [status.to_json() for status in found]})
        return 0
    if found:
        print_table(JOB_HEADERS, [job_row(status) for status in found], JOB_NUMBERS, JOB_SPARED)
    else:
        click.echo("no jobs yet: `scanomaly run FOLDER` makes one", err=True)
    return 0


def _first(jobs: "Jobs", wanted: JobFilter, limit: int) -> list[JobStatus]:
    from ..jobs import JOBS_PAGE

    found: list[JobStatus] = []
    after: str | None = None
    while len(found) < limit:
        page = jobs.jobs(wanted, min(JOBS_PAGE, limit - len(found)), after)
        found += page.jobs
        after = page.after
        if after is None:
            break
    return found


def _steering(name: str, words: str, steer: Callable[["Jobs", str], JobStatus]) -> click.Command:
    """A command that does one thing with a job, and shows what became of it."""

    @cloup.command(name, help=words, epilog=examples(f"scanomaly {name} JOB"))
    @click.argument("job")
    @SERVER
    @AS_JSON
    @DEBUG
    def command(job: str, server: str | None, as_json: bool) -> int:
        with open_jobs(server) as jobs:
            print_status(steer(jobs, job), as_json)
        return 0

    return command


cancel = _steering("cancel", "Stop a job; what is embedded stays in the store.", lambda jobs, job: jobs.cancel(job))
retry = _steering(
    "retry",
    "Queue the scans of a job that failed again; the report will be written again.",
    lambda jobs, job: jobs.retry(job),
)
pause = _steering(
    "pause",
    "Let no more batches of a job begin; those that run are finished.",
    lambda jobs, job: jobs.pause(job),
)


@cloup.command(epilog=examples("scanomaly resume JOB", "scanomaly resume", more="docs/reliability.md"))
@click.argument("job", required=False)
@SERVER
@AS_JSON
@DEBUG
def resume(job: str | None, server: str | None, as_json: bool) -> int:
    """Take up a paused job, or all work whose messages or workers were lost.

    Workers do the second by themselves, within seconds; this does it now.
    """
    settings = Settings.from_environment()
    if job is None:
        if server or settings.server_url:
            raise UsageError("name the paused job: lost work is taken up where the store is, not through a service")
        return _resume_all(settings, as_json)
    with open_jobs(server) as jobs:
        print_status(jobs.resume(job), as_json)
    return 0


def _resume_all(settings: Settings, as_json: bool) -> int:
    from ..local import resume as resume_work

    with open_store(settings) as store:
        sent, notes = resume_work(settings, store, None)
    say_notes(notes)
    print_json({"calls_sent": sent}) if as_json else click.echo(f"{sent} calls sent to the workers")
    return 0


@cloup.command(epilog=examples("scanomaly workers", "scanomaly workers --here", more="docs/deployment.md"))
@click.option("--here", is_flag=True, help="Only this machine's; exit code 1 when none lives.")
@SERVER
@AS_JSON
@DEBUG
def workers(here: bool, server: str | None, as_json: bool) -> int:
    """List the workers of the last week, and which of them live."""
    import socket

    with open_jobs(server, looks=True) as jobs:
        found = [worker for worker in jobs.workers() if not here or worker.host == socket.gethostname()]
    if as_json:
        print_json({"workers": [worker_json(worker) for worker in found]})
    elif found:
        print_table(WORKER_HEADERS, [worker_row(worker) for worker in found], spared=WORKER_SPARED)
    else:
        click.echo("no workers yet: `scanomaly worker` starts one", err=True)
    return 1 if here and not any(worker.alive for worker in found) else 0
