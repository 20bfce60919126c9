"""Commands that make a job: run, demo, submit."""

import secrets
from collections.abc import Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import cloup

from ...models.encoders import EncoderSpec
from ...models.settings import Settings
from ..status import job_status
from .options import AS_JSON, DEBUG, DEVICE, OPEN, SERVER, examples, job_options
from .output import finish, open_jobs, open_store, print_json, say_notes
from .terminal import plain

# What a command needs it imports itself: `--help` answers before Celery and NumPy would be loaded.
if TYPE_CHECKING:
    from ..submit import Prepared, Request


@cloup.command(
    epilog=examples(
        "scanomaly run ./scans",
        "scanomaly run ./scans --normal healthy/ --out ./report",
        "scanomaly run ./scans --encoder efficientnet_lite0 --scorer knn,patch_knn",
        more="docs/formats.md, docs/report.md",
    )
)
@click.argument("source", required=False)
@job_options
@DEVICE
@click.option("--resume", metavar="JOB", help="Finish a job that was interrupted, instead of a new one.")
@OPEN
@AS_JSON
@DEBUG
def run(
    source: str | None, resume: str | None, device: str | None, open_it: bool, as_json: bool, **options: Any
) -> int:
    """Score a folder of scans here and write the report.

    SOURCE is a folder, an archive or a volume, a URL (s3://, gs://, https://), `-` for paths on standard input,
    `kaggle:OWNER/NAME`, or `sample:` for scans that Scanomaly draws itself.
    """
    from ..run import resume_job, run_job
    from ..watch import make_counter, make_display

    if (source is None) == (resume is None):
        raise click.UsageError("give a SOURCE, or --resume JOB")
    settings = Settings.from_environment()
    with open_store(settings) as store:
        if resume is not None:
            status = resume_job(resume, store, settings, make_display(own_worker=True), device)
        else:
            request = _request(source or "", settings, device=device, **options)
            prepared = _prepare(request, settings, quiet=as_json)
            _require_encoder(request.encoder, device, fetch=True)
            storing = make_counter("Stored", quiet=as_json)
            display = make_display(own_worker=True)
            status = run_job(prepared, store, settings, display, device, lambda _job, files: storing(files))
    return finish(status, as_json, open_it, told=resume is None)


@cloup.command(epilog=examples("scanomaly demo", "scanomaly demo ./scans"))
@click.argument("source", required=False)
@DEBUG
def demo(source: str | None) -> int:
    """Show the whole job: on SOURCE, or on the Kaggle brain MRI images, or on drawn ones without internet."""
    from ..demo import demo_request
    from ..run import run_job
    from ..watch import make_display

    settings = Settings.from_environment()
    request = demo_request(source, settings, lambda text: click.echo(plain(text), err=True))
    with open_store(settings) as store:
        status = run_job(
            _prepare(request, settings, said=request.notes), store, settings, make_display(own_worker=True)
        )
    return finish(status, as_json=False, open_it=False)


@cloup.command(
    epilog=examples(
        "scanomaly submit ./scans", "scanomaly submit s3://bucket/scans --priority high", more="docs/deployment.md"
    )
)
@click.argument("source")
@job_options
@SERVER
@AS_JSON
@DEBUG
def submit(source: str, server: str | None, as_json: bool, **options: Any) -> int:
    """Queue a job for the workers, and print its id.

    With --server, SOURCE is a folder of that machine; the report goes where it keeps reports.
    """
    settings = Settings.from_environment()
    if server or settings.server_url:
        return _submit_there(source, server, as_json, **options)
    return _submit_here(source, settings, as_json, **options)


def _submit_there(source: str, server: str | None, as_json: bool, **options: Any) -> int:
    for name, what in (("out", "--out"), ("follow_links", "--follow-links")):
        if options.pop(name):
            raise click.UsageError(f"{what} is not for the service, which decides about its own disk: leave it out")
    with open_jobs(server) as jobs:
        status = jobs.submit(source, secrets.token_hex(16), **options)
    print_json(status.to_json()) if as_json else click.echo(status.job)
    return 0


def _submit_here(source: str, settings: Settings, as_json: bool, **options: Any) -> int:
    from ..local import call_workers, require_broker_rights
    from ..submit import store_job
    from ..watch import make_counter

    prepared = _prepare(_request(source, settings, **options), settings, quiet=as_json)
    storing = make_counter("Stored", quiet=as_json)
    said: list[str] = []
    if settings.broker_url is None:
        _require_encoder(prepared.request.encoder)  # the workers are on this machine too
    require_broker_rights(settings)

    def stored(job_id: str, files: int) -> None:
        if not as_json and not said:
            click.echo(job_id)  # at once: it can be watched and cancelled, whatever the broker says
            said.append(job_id)
        storing(files)

    with open_store(settings) as store:
        job = store_job(prepared, store, settings, partial(call_workers, settings, store), stored)
        if job.whole:
            say_notes(call_workers(settings, store, job.id))
        status = job_status(store, job.id)
    if as_json:
        print_json(status.to_json())
    if not job.whole and status.failure is not None:
        raise status.failure
    return 0


def _request(source: str, settings: Settings, **options: Any) -> "Request":
    from ..submit import make_request

    return make_request(source, settings, **options)


def _prepare(request: "Request", settings: Settings, quiet: bool = False, said: Collection[str] = ()) -> "Prepared":
    """Look through the source, and say what was found, and the notes but for those of the names in `said`."""
    from ..submit import prepare
    from ..watch import make_counter

    prepared = prepare(request, settings, make_counter("Found", quiet))
    say_notes(prepared.notes[key] for key in ("source", "encoder") if key in prepared.notes and key not in said)
    for line in _found_lines(prepared):
        click.echo(plain(line), err=True)
    return prepared


def _require_encoder(encoder: EncoderSpec, device: str | None = None, fetch: bool = False) -> None:
    from ..local import needs_hub, require_encoder

    if needs_hub(encoder):
        click.echo(f"Looking for the weights of {encoder.key}", err=True)
        say_notes(require_encoder(encoder, device, fetch))


def _found_lines(prepared: "Prepared") -> Iterator[str]:
    labels, ignored = prepared.counts.labels, prepared.counts.ignored
    parts = [f"{labels[label]} {label or 'unlabelled'}" for label in sorted(labels, key=str, reverse=True)]
    found = f"{labels.total()} images ({', '.join(parts)}, {ignored.total()} ignored)"
    yield f"Found {found}: {prepared.notes['labels']}"
    if "groups" in prepared.notes:
        yield f"  {prepared.notes['groups']}"
    for reason, count in ignored.most_common():
        yield f"  ignored, {reason}: {count}"
