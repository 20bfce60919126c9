"""Commands about what a done job found: report, score, export."""

from pathlib import Path

import click
import cloup

from ...models.errors import JobStateError, ReportError, UsageError
from ...models.scorers import SCORERS, check_scorers, parse_scorers
from ...models.settings import Settings
from ...models.states import JobState
from ..status import job_status
from .options import AS_JSON, DEBUG, OPEN, SERVER, examples
from .output import (
    finish,
    follow_job,
    open_jobs,
    open_report,
    open_service,
    open_store,
    print_folder,
    print_json,
    stages,
)


@cloup.command(
    epilog=examples(
        "scanomaly report JOB --open", "scanomaly report JOB --rebuild --out ./report", more="docs/report.md"
    )
)
@click.argument("job")
@OPEN
@click.option("--rebuild", is_flag=True, help="Write it again, from the scores in the store.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="With --rebuild or --server: another folder to write it into."
)
@SERVER
@AS_JSON
@DEBUG
def report(job: str, open_it: bool, rebuild: bool, out: Path | None, server: str | None, as_json: bool) -> int:
    """Print the folder of a job's report.

    With --server, its files are fetched first, into the home of this machine or into --out.
    """
    settings = Settings.from_environment()
    if server or settings.server_url:
        if rebuild:
            raise click.UsageError("--rebuild is not for the service, whose workers write reports: leave it out")
        job_id, folder = _fetch_report(settings, server, job, out)
    else:
        job_id, folder = _own_report(job, rebuild, out)
    print_json({"job": job_id, "report": str(folder)}) if as_json else print_folder(folder)
    if open_it:
        open_report(folder)
    return 0


def _fetch_report(settings: Settings, server: str | None, job: str, out: Path | None) -> tuple[str, Path]:
    """The id of a job of the service, and the folder here that its report was copied to."""
    with open_service(server) as jobs:
        found = jobs.status(job)
        folder = (out or settings.home / "reports" / found.job).absolute()
        jobs.fetch_report(found.job, folder)
    return found.job, folder


def _own_report(job: str, rebuild: bool, out: Path | None) -> tuple[str, Path]:
    """The id of a job of the store, and the folder of its report."""
    from ..local import rebuild_report

    if out is not None and not rebuild:
        raise click.UsageError("--out goes with --rebuild or --server")
    with open_store(looks=True) as store:
        found = store.find_job(job)
    if found.state != JobState.DONE:
        raise JobStateError(f"job {found.id} is {found.state}: only a done job has a report")
    folder = Path(out.absolute() if out else found.report_folder)
    if rebuild:
        with stages() as begins:
            rebuild_report(found.id, folder, begins=begins)
    if not (folder / "report.html").is_file():
        raise ReportError(
            f"there is no report in {folder}: it was moved, or written on another machine; --rebuild writes it here"
        )
    return found.id, folder


@cloup.command(
    epilog=examples(
        "scanomaly score JOB --scorer knn,mahalanobis", "scanomaly score JOB --headline knn", more="docs/scoring.md"
    )
)
@click.argument("job")
@click.option(
    "--scorer",
    "scorers",
    metavar="NAMES",
    callback=lambda _context, _option, names: parse_scorers(names) if names else (),
    help=f"Of {', '.join(SCORERS)}, with commas between them.",
)
@click.option("--headline", type=click.Choice(SCORERS), help="The scorer that ranks the scans from now on.")
@OPEN
@SERVER
@AS_JSON
@DEBUG
def score(
    job: str, scorers: tuple[str, ...], headline: str | None, open_it: bool, server: str | None, as_json: bool
) -> int:
    """Score a done job with more scorers, and write its report again.

    They work on the stored embeddings: nothing is encoded. With --server, the service's workers do it.
    """
    from ..local import rebuild_report

    if not scorers and headline is None:
        raise click.UsageError("name scorers with --scorer, or one with --headline")
    settings = Settings.from_environment()
    if server or settings.server_url:
        return _score_there(server, job, scorers, headline, as_json)
    with open_store() as store:
        found = store.find_job(job)
        if found.state != JobState.DONE:
            raise JobStateError(f"job {found.id} is {found.state}: only a done job can be scored again")
        check_scorers((*scorers, *([headline] if headline else [])), found.encoder)
        with stages() as begins:
            rebuild_report(found.id, scorers=scorers or (str(headline),), headline=headline, begins=begins)
        status = job_status(store, found.id)
    return finish(status, as_json, open_it)


def _score_there(
    server: str | None,
    job: str,
    scorers: tuple[str, ...],
    headline: str | None,
    as_json: bool,
) -> int:
    with open_jobs(server) as jobs:
        job_id = jobs.score(job, scorers, headline).job
        status = follow_job(jobs, job_id)
        return finish(status, as_json, open_it=False)


@cloup.command(
    epilog=examples(
        "scanomaly export JOB --vectors npy",
        "scanomaly export JOB --vectors parquet --out ./vectors",
        more="docs/scoring.md",
    )
)
@click.argument("job")
@click.option(
    "--vectors",
    "form",
    type=click.Choice(["npy", "parquet"]),
    required=True,
    help="npy: a matrix, and a Parquet file with a row for each, as clip-retrieval has them; parquet: one file.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The folder to make; by default JOB-vectors here.")
@AS_JSON
@DEBUG
def export(job: str, form: str, out: Path | None, as_json: bool) -> int:
    """Write the embeddings of a job that has ended, with the paths of their scans, for other programs."""
    from ..local import export_vectors

    if Settings.from_environment().server_url:
        raise UsageError(
            "the service gives out no embeddings: unset SCANOMALY_SERVER_URL where the store can be reached, and "
            "export there"
        )
    with open_store(looks=True) as store:
        found = store.find_job(job)
    if not found.state.ended:
        raise JobStateError(f"job {found.id} is {found.state}: only a job that has ended can be exported")
    folder = (out or Path(f"{found.id}-vectors")).absolute()
    count = export_vectors(found.id, form, folder)
    if as_json:
        print_json({"job": found.id, "vectors": count, "folder": str(folder)})
    else:
        click.echo(f"{count} vectors in {folder}")
    return 0
