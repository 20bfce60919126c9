"""What commands print, and what they open for as long as they need it."""

import json
import webbrowser
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...models.settings import Settings
from ..status import JobStatus, result_lines, status_lines

if TYPE_CHECKING:
    from ...models.store import Store
    from ..jobs import Jobs


@contextmanager
def open_store(settings: Settings | None = None) -> Iterator["Store"]:
    from ...models.store import Store

    store = Store.open(settings or Settings.from_environment())
    try:
        yield store
    finally:
        store.close()


@contextmanager
def open_jobs(server: str | None) -> Iterator["Jobs"]:
    """The jobs of the service that is named, or of the store."""
    settings = Settings.from_environment()
    url = server or settings.server_url
    jobs: Jobs
    if url is not None:
        from ..remote import RemoteJobs

        jobs = RemoteJobs(url, settings.api_token)
    else:
        from ..jobs import StoreJobs

        jobs = StoreJobs(settings, say=say_note)
    try:
        yield jobs
    finally:
        jobs.close()


def follow_job(jobs: "Jobs", job_id: str) -> JobStatus:
    """Show how a job goes on until it ends."""
    from ..watch import follow, make_display

    seconds = Settings.from_environment().store_seconds
    return follow(lambda: jobs.status(job_id), make_display(), seconds, hint=True, poll_seconds=jobs.poll_seconds)


def finish(status: JobStatus, as_json: bool, open_it: bool) -> int:
    """Show what became of a job, and return or raise what the command ends with."""
    if as_json:
        print_json(status.to_json())
    if status.failure is not None:
        raise status.failure
    if not as_json:
        for line in result_lines(status):
            click.echo(plain(line))
    if open_it:
        open_report(Path(str(status.report)))
    return status.exit_code or 0


def print_status(status: JobStatus, as_json: bool) -> None:
    if as_json:
        print_json(status.to_json())
        return
    for line in status_lines(status):
        click.echo(plain(line))


def print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def open_report(folder: Path) -> None:
    webbrowser.open((folder / "report.html").as_uri())


def plain(text: str) -> str:
    """Without control characters: a file's name must not steer the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        say_note(note)


def say_note(note: str) -> None:
    """Tell a person what they should know, where it is in nobody's way."""
    click.echo(plain(f"Note: {note}"), err=True)
