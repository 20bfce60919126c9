"""The command line: thin, and the only place that prints an error."""

import json
import sys
import traceback
import webbrowser
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..models.encoders import AUTO, DEFAULT_ENCODER, OFFLINE_ENCODER, PRECISIONS, EncoderSpec, parse_encoder
from ..models.errors import JobStateError, ReportError, ScanomalyError
from ..models.records import DEFAULT_FALSE_ALARM_RATE
from ..models.scorers import DEFAULT_SCORERS, SCORERS, check_scorers, parse_scorers
from ..models.settings import Settings
from ..models.states import JobState, Priority
from .status import JobStatus, job_status, result_lines, status_lines, worker_json, worker_line

# What a command needs it imports itself: `--help` and `status` answer before Celery and NumPy would be loaded.
if TYPE_CHECKING:
    from ..models.store import Store
    from .submit import Prepared, Request

_Function = TypeVar("_Function", bound=Callable[..., Any])
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
_DEBUG = click.option("--debug", is_flag=True, expose_value=False, help="On an error, print the traceback too.")
_DEVICE = click.option(
    "--device", metavar="NAME", help="cpu, cuda, cuda:1, mps; by default a GPU when there is one."
)
_OPEN = click.option("--open", "open_it", is_flag=True, help="Open the report in a browser.")


def _encoder_options(function: _Function) -> _Function:
    for option in (
        click.option("--precision", type=click.Choice([*PRECISIONS, AUTO]), default="fp32", show_default=True),
        click.option(
            "--weights",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A checkpoint on this disk, instead of the model hub's.",
        ),
        click.option(
            "--encoder",
            default=DEFAULT_ENCODER,
            show_default=True,
            metavar="NAME",
            help=f"An open_clip model, MODEL or MODEL/TAG; or {OFFLINE_ENCODER}, which needs no internet.",
        ),
    ):
        function = option(function)
    return function


def _job_options(function: _Function) -> _Function:
    """What a job is made of: the same for `run` and `submit`."""
    for option in (
        click.option("--batch-size", type=click.IntRange(1, 10_000), help="Scans in one queue message."),
        click.option(
            "--priority",
            type=click.Choice([priority.value for priority in Priority]),
            default=Priority.NORMAL.value,
            show_default=True,
            help="Whose scans the workers take first.",
        ),
        click.option(
            "--follow-links", is_flag=True, help="Take scans behind links that lead out of the folder too."
        ),
        click.option(
            "--rehash", is_flag=True, help="Read files too whose size and time did not change since they were read."
        ),
        click.option(
            "--false-alarm-rate",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=DEFAULT_FALSE_ALARM_RATE,
            show_default=True,
            metavar="SHARE",
            help="The share of normal scans that the report may call anomalies.",
        ),
        click.option(
            "--scorer",
            "scorers",
            default=",".join(DEFAULT_SCORERS),
            show_default=True,
            metavar="NAMES",
            callback=lambda _context, _option, names: parse_scorers(names),
            help=f"Of {', '.join(SCORERS)}, with commas between them: the first ranks, the report compares all.",
        ),
        click.option("--out", type=click.Path(path_type=Path), help="The folder to write the report into."),
        click.option(
            "--labels",
            "labels_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A CSV file with the columns path,label.",
        ),
        click.option(
            "--group",
            metavar="COLUMN|REGEX",
            help="What scans of a patient share: a column of --labels, or a regular expression on the path.",
        ),
        click.option(
            "--anomaly", multiple=True, metavar="GLOB", help="Scans known to be anomalies: a glob or a sub-folder."
        ),
        click.option(
            "--normal", multiple=True, metavar="GLOB", help="Scans known to be normal: a glob or a sub-folder."
        ),
        _encoder_options,
    ):
        function = option(function)
    return function


@click.group(context_settings=_CONTEXT)
@click.version_option(package_name="scanomaly")
@_DEBUG
def cli() -> None:
    """Find the scans in a folder that do not look normal.

    \b
    scanomaly run ./scans          one job on this machine, from the folder to the report
    scanomaly submit, worker       the same on many machines, through Redis
    """


@cli.command()
@click.argument("source", required=False)
@_job_options
@_DEVICE
@click.option("--resume", metavar="JOB", help="Finish a job that was interrupted, instead of a new one.")
@_OPEN
@_JSON
@_DEBUG
def run(
    source: str | None, resume: str | None, device: str | None, open_it: bool, as_json: bool, **options: Any
) -> int:
    """Score a folder of scans here and write the report.

    SOURCE is a folder, `-` for paths on standard input, `kaggle:OWNER/NAME`, or `sample:` for scans that
    Scanomaly draws itself.
    """
    from .run import resume_job, run_job
    from .watch import make_counter, make_display

    if (source is None) == (resume is None):
        raise click.UsageError("give a SOURCE, or --resume JOB")
    settings = Settings.from_environment()
    with _store(settings) as store:
        if resume is not None:
            status = resume_job(resume, store, settings, make_display(), device)
        else:
            request = _request(source or "", settings, device=device, **options)
            prepared = _prepare(request, settings, quiet=as_json)
            _require_encoder(request.encoder, device, fetch=True)
            storing = make_counter("Stored", quiet=as_json)
            status = run_job(prepared, store, settings, make_display(), device, lambda _job, files: storing(files))
    return _finish(status, as_json, open_it)


@cli.command()
@click.argument("source", required=False)
@_DEBUG
def demo(source: str | None) -> int:
    """Show the whole job: on SOURCE, or on the Kaggle brain MRI images, or on drawn ones without internet."""
    from .demo import demo_request
    from .run import run_job
    from .watch import make_display

    settings = Settings.from_environment()
    request = demo_request(source, settings, lambda text: click.echo(_plain(text), err=True))
    with _store(settings) as store:
        status = run_job(_prepare(request, settings), store, settings, make_display())
    return _finish(status, as_json=False, open_it=False)


@cli.command()
@click.argument("source")
@_job_options
@_JSON
@_DEBUG
def submit(source: str, as_json: bool, **options: Any) -> int:
    """Queue a job for the workers, and print its id."""
    from .local import call_workers
    from .submit import store_job
    from .watch import make_counter

    settings = Settings.from_environment()
    prepared = _prepare(_request(source, settings, **options), settings, quiet=as_json)
    storing = make_counter("Stored", quiet=as_json)
    said: list[str] = []
    if settings.broker_url is None:
        _require_encoder(prepared.request.encoder)  # the workers are on this machine too

    def stored(job_id: str, files: int) -> None:
        if not as_json and not said:
            click.echo(job_id)  # at once: it can be watched and cancelled, whatever the broker says
            said.append(job_id)
        storing(files)

    with _store(settings) as store:
        job = store_job(prepared, store, settings, partial(call_workers, settings, store), stored)
        if job.whole:
            _say_notes(call_workers(settings, store, job.id))
        status = job_status(store, job.id)
    if as_json:
        _print_json(status.to_json())
    if not job.whole and status.error is not None:
        raise status.error
    return 0


@cli.command(context_settings={"ignore_unknown_options": True})
@_DEVICE
@click.option(
    "--devices", metavar="LIST", help="Be a worker on each: all (of CUDA's), or a list such as cuda:0,cuda:1."
)
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
@_DEBUG
def worker(device: str | None, devices: str | None, celery_options: Sequence[str]) -> int:
    """Be a worker until stopped: on a GPU when there is one.

    CELERY_OPTIONS go to `celery worker` as they are.
    """
    import os

    from .local import serve

    if device is not None and devices is not None:
        raise click.UsageError("--device and --devices exclude each other: give one or the other")
    if device is not None:
        os.environ["SCANOMALY_DEVICE"] = device
    settings = Settings.from_environment()
    arguments = [*celery_options] if devices is None else ["--devices", devices, *celery_options]
    with _store(settings) as store:
        return serve(settings, store, arguments)


@cli.command()
@click.argument("job")
@_JSON
@_DEBUG
def status(job: str, as_json: bool) -> int:
    """Tell how far a job is."""
    with _store() as store:
        _print_status(job_status(store, job), as_json)
    return 0


@cli.command()
@click.argument("job")
@_JSON
@_DEBUG
def watch(job: str, as_json: bool) -> int:
    """Follow a job to its end, and see to it that its calls are not lost."""
    from .local import reconciling_calls
    from .watch import follow, make_display

    settings = Settings.from_environment()
    with _store(settings) as store:
        job_id = store.find_job(job).id
        with reconciling_calls(settings, store):
            status = follow(store, job_id, make_display(), settings.store_seconds, hint=True)
        return _finish(status, as_json, open_it=False)


@cli.command()
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, newest first.")
@_JSON
@_DEBUG
def jobs(limit: int, as_json: bool) -> int:
    """List the jobs, newest first."""
    with _store() as store:
        alive = store.workers.alive()
        found = [JobStatus(job, store.progress(job.id), alive) for job in store.jobs(limit)]
    if as_json:
        _print_json({"jobs": [status.to_json() for status in found]})
        return 0
    for status in found:
        when = status.job.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        done = f"{status.finished_scans}/{status.total}"
        state = "stalled" if status.stalled else status.job.state
        click.echo(_plain(f"{status.job.id}  {state:<9}  {done:>13}  {when}  {status.job.source}"))
    if not found:
        click.echo("no jobs yet: `scanomaly run FOLDER` makes one", err=True)
    return 0


@cli.command()
@click.argument("job")
@_JSON
@_DEBUG
def cancel(job: str, as_json: bool) -> int:
    """Stop a job; what is embedded stays in the store."""
    with _store() as store:
        job_id = store.find_job(job).id
        store.cancel(job_id)
        _print_status(job_status(store, job_id), as_json)
    return 0


@cli.command()
@click.argument("job")
@_JSON
@_DEBUG
def retry(job: str, as_json: bool) -> int:
    """Queue the scans of a job that failed again; the report will be written again."""
    from .local import call_workers

    settings = Settings.from_environment()
    with _store(settings) as store:
        found = store.find_job(job)
        count = store.reopen(found.id, settings.batch_size)
        click.echo(f"job {found.id}: {count} scans are queued again", err=True)
        _say_notes(call_workers(settings, store, found.id))
        _print_status(job_status(store, found.id), as_json)
    return 0


@cli.command()
@click.argument("job")
@_JSON
@_DEBUG
def pause(job: str, as_json: bool) -> int:
    """Let no more batches of a job begin; those that run are finished."""
    with _store() as store:
        job_id = store.find_job(job).id
        store.pause(job_id)
        _print_status(job_status(store, job_id), as_json)
    return 0


@cli.command()
@click.argument("job", required=False)
@_JSON
@_DEBUG
def resume(job: str | None, as_json: bool) -> int:
    """Take up a paused job, or all work whose messages or workers were lost.

    Workers do the second by themselves, within seconds; this does it now.
    """
    from .local import resume as resume_work

    settings = Settings.from_environment()
    with _store(settings) as store:
        job_id = None if job is None else store.find_job(job).id
        sent, notes = resume_work(settings, store, job_id)
        _say_notes(notes)
        if job_id is not None:
            _print_status(job_status(store, job_id), as_json)
        elif as_json:
            _print_json({"calls_sent": sent})
        else:
            click.echo(f"{sent} calls sent to the workers")
    return 0


@cli.command()
@click.option("--here", is_flag=True, help="Only this machine's; exit code 1 when none lives.")
@_JSON
@_DEBUG
def workers(here: bool, as_json: bool) -> int:
    """List the workers of the last week, and which of them live."""
    import socket

    with _store() as store:
        found = [worker for worker in store.workers.all() if not here or worker.host == socket.gethostname()]
    if as_json:
        _print_json({"workers": [worker_json(worker) for worker in found]})
    else:
        for worker in found:
            click.echo(_plain(worker_line(worker)))
        if not found:
            click.echo("no workers yet: `scanomaly worker` starts one", err=True)
    return 1 if here and not any(worker.alive for worker in found) else 0


@cli.group()
def store() -> None:
    """Look after the store's schema."""


@store.command("check")
@_JSON
@_DEBUG
def store_check(as_json: bool) -> int:
    """Tell whether the store's schema is this program's."""
    return _store_schema(upgrade=False, as_json=as_json)


@store.command("upgrade")
@_JSON
@_DEBUG
def store_upgrade(as_json: bool) -> int:
    """Bring an older schema to this program's version. Stop the workers first, and keep a copy of the database."""
    return _store_schema(upgrade=True, as_json=as_json)


def _store_schema(upgrade: bool, as_json: bool) -> int:
    from ..models.database import SCHEMA_VERSION
    from ..models.store import Store

    opened = Store.open(Settings.from_environment(), upgrade)
    before, name = opened.schema_before, opened.name
    opened.close()
    if as_json:
        _print_json({"store": name, "schema_before": before, "schema": SCHEMA_VERSION})
    elif before == SCHEMA_VERSION:
        click.echo(f"the store {name} has schema {SCHEMA_VERSION}, as this program needs it")
    else:
        done = "was made" if before is None else f"was upgraded from schema {before}"
        click.echo(f"the store {name} {done}: it has schema {SCHEMA_VERSION}")
    return 0


@cli.command()
@click.argument("job")
@_OPEN
@click.option("--rebuild", is_flag=True, help="Write it again, from the scores in the store.")
@click.option("--out", type=click.Path(path_type=Path), help="With --rebuild: another folder to write it into.")
@_JSON
@_DEBUG
def report(job: str, open_it: bool, rebuild: bool, out: Path | None, as_json: bool) -> int:
    """Print the folder of a job's report."""
    from .local import rebuild_report

    if out is not None and not rebuild:
        raise click.UsageError("--out goes with --rebuild")
    with _store() as store:
        found = store.find_job(job)
    if found.state != JobState.DONE:
        raise JobStateError(f"job {found.id} is {found.state}: only a done job has a report")
    folder = Path(out.absolute() if out else found.report_folder)
    if rebuild:
        rebuild_report(found.id, folder)
    if not (folder / "report.html").is_file():
        raise ReportError(
            f"there is no report in {folder}: it was moved, or written on another machine; --rebuild writes it here"
        )
    _print_json({"job": found.id, "report": str(folder)}) if as_json else click.echo(folder)
    if open_it:
        _open(folder)
    return 0


@cli.command()
@click.argument("job")
@click.option(
    "--scorer",
    "scorers",
    metavar="NAMES",
    callback=lambda _context, _option, names: parse_scorers(names) if names else (),
    help=f"Of {', '.join(SCORERS)}, with commas between them.",
)
@click.option("--headline", type=click.Choice(SCORERS), help="The scorer that ranks the scans from now on.")
@_OPEN
@_JSON
@_DEBUG
def score(job: str, scorers: tuple[str, ...], headline: str | None, open_it: bool, as_json: bool) -> int:
    """Score a done job with more scorers, and write its report again.

    They work on the stored embeddings: nothing is encoded.
    """
    from .local import rebuild_report

    if not scorers and headline is None:
        raise click.UsageError("name scorers with --scorer, or one with --headline")
    with _store() as store:
        found = store.find_job(job)
        if found.state != JobState.DONE:
            raise JobStateError(f"job {found.id} is {found.state}: only a done job can be scored again")
        check_scorers((*scorers, *([headline] if headline else [])), found.encoder)
        rebuild_report(found.id, scorers=scorers or (str(headline),), headline=headline)
        status = job_status(store, found.id)
    return _finish(status, as_json, open_it)


@cli.command()
@click.argument("job")
@click.option(
    "--vectors",
    "form",
    type=click.Choice(["npy", "parquet"]),
    required=True,
    help="npy: a matrix, and a Parquet file with a row for each, as clip-retrieval has them; parquet: one file.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The folder to make; by default JOB-vectors here.")
@_JSON
@_DEBUG
def export(job: str, form: str, out: Path | None, as_json: bool) -> int:
    """Write the embeddings of a job that has ended, with the paths of their scans, for other programs."""
    from .local import export_vectors

    with _store() as store:
        found = store.find_job(job)
    if not found.state.ended:
        raise JobStateError(f"job {found.id} is {found.state}: only a job that has ended can be exported")
    folder = (out or Path(f"{found.id}-vectors")).absolute()
    count = export_vectors(found.id, form, folder)
    if as_json:
        _print_json({"job": found.id, "vectors": count, "folder": str(folder)})
    else:
        click.echo(f"{count} vectors in {folder}")
    return 0


@cli.command()
@_encoder_options
@_JSON
@_DEBUG
def doctor(as_json: bool, **options: Any) -> int:
    """Tell what works here: disk, store, broker, worker, device, encoder."""
    from .doctor import run_checks

    settings = Settings.from_environment()
    checks = run_checks(settings, _encoder(settings.device, **options)[0])
    if as_json:
        _print_json({"ok": all(c.ok for c in checks), "checks": [vars(check) for check in checks]})
    else:
        for check in checks:
            click.echo(_plain(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<8}  {check.detail}"))
    return 0 if all(check.ok for check in checks) else 1


def _encoder(device: str, encoder: str, weights: Path | None, precision: str) -> tuple[EncoderSpec, dict[str, str]]:
    """An encoder, and a note where its precision was chosen here: a job has one, whoever takes its batches."""
    notes = {}
    if precision == AUTO:
        from .local import suitable_precision

        precision, notes["encoder"] = suitable_precision(device)
    return parse_encoder(encoder, weights, precision), notes


def _request(
    source: str,
    settings: Settings,
    *,
    normal: Sequence[str],
    anomaly: Sequence[str],
    labels_file: Path | None,
    group: str | None,
    out: Path | None,
    batch_size: int | None,
    priority: str,
    follow_links: bool,
    rehash: bool,
    false_alarm_rate: float,
    scorers: tuple[str, ...],
    device: str | None = None,
    **options: Any,
) -> "Request":
    from .submit import Request

    encoder, notes = _encoder(device or settings.device, **options)
    return Request(
        source,
        encoder,
        normal,
        anomaly,
        labels_file,
        group,
        out,
        batch_size or settings.batch_size,
        Priority(priority),
        follow_links,
        rehash,
        false_alarm_rate,
        scorers,
        notes,
    )


def _prepare(request: "Request", settings: Settings, quiet: bool = False) -> "Prepared":
    from .submit import prepare
    from .watch import make_counter

    prepared = prepare(request, settings, make_counter("Found", quiet))
    _say_notes(prepared.notes[key] for key in ("source", "encoder") if key in prepared.notes)
    for line in _found_lines(prepared):
        click.echo(_plain(line), err=True)
    return prepared


def _require_encoder(encoder: EncoderSpec, device: str | None = None, fetch: bool = False) -> None:
    from .local import needs_hub, require_encoder

    if needs_hub(encoder):
        click.echo(f"Looking for the weights of {encoder.key}", err=True)
        _say_notes(require_encoder(encoder, device, fetch))


def _say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(_plain(f"Note: {note}"), err=True)


def _found_lines(prepared: "Prepared") -> Iterator[str]:
    labels, ignored = prepared.counts.labels, prepared.counts.ignored
    parts = [f"{labels[label]} {label or 'unlabelled'}" for label in sorted(labels, key=str, reverse=True)]
    found = f"{labels.total()} images ({', '.join(parts)}, {ignored.total()} ignored)"
    yield f"Found {found}: {prepared.notes['labels']}"
    if "groups" in prepared.notes:
        yield f"  {prepared.notes['groups']}"
    for reason, count in ignored.most_common():
        yield f"  ignored, {reason}: {count}"


@contextmanager
def _store(settings: Settings | None = None) -> Iterator["Store"]:
    from ..models.store import Store

    store = Store.open(settings or Settings.from_environment())
    try:
        yield store
    finally:
        store.close()


def _finish(status: JobStatus, as_json: bool, open_it: bool) -> int:
    """Show what became of a job, and return or raise what the command ends with."""
    if as_json:
        _print_json(status.to_json())
    if status.error is not None:
        raise status.error
    if not as_json:
        for line in result_lines(status):
            click.echo(_plain(line))
    if open_it:
        _open(Path(status.job.report_folder))
    return status.exit_code or 0


def _print_status(status: JobStatus, as_json: bool) -> None:
    if as_json:
        _print_json(status.to_json())
        return
    for line in status_lines(status):
        click.echo(_plain(line))


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _open(folder: Path) -> None:
    webbrowser.open((folder / "report.html").as_uri())


def _plain(text: str) -> str:
    """Without control characters: a file's name must not steer the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. Every error ends here, as one line on standard error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = cli.main(arguments, prog_name="scanomaly", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except Exception as error:
        sys.exit(_print_error(error, arguments))
    except KeyboardInterrupt:
        sys.exit(_print_error(click.Abort(), arguments))


def _print_error(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error and return the exit code. The options are looked for in the words themselves, because an
    error in the command line comes before they are parsed."""
    code, message = _describe(error)
    if "--debug" in arguments:
        traceback.print_exception(error)
    click.echo(_plain(f"scanomaly: {message}"), err=True)
    documented = isinstance(error, ScanomalyError) and error.exit_code in (4, 5)
    if "--json" in arguments and not documented:  # those two have printed the job's status
        _print_json({"error": message, "exit_code": code})
    return code


def _describe(error: Exception) -> tuple[int, str]:
    if isinstance(error, ScanomalyError):
        return error.exit_code, str(error)
    if isinstance(error, click.Abort):
        return 130, "stopped"
    if isinstance(error, click.ClickException):
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see `{error.ctx.command_path} --help`)"
        return error.exit_code, error.format_message().rstrip(".") + hint
    return 1, f"internal error: {type(error).__name__}: {error}; run it again with --debug and report it"


if __name__ == "__main__":
    main()
