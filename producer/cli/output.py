"""What commands print, and what they open for as long as they need it."""

import json
import os
import sys
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...models.settings import Settings
from ..status import JobStatus
from .terminal import Field, is_coloured, plain, print_fields
from .texts import end_fields, next_steps, status_fields

if TYPE_CHECKING:
    from ...models.store import Store
    from ..jobs import Jobs
    from ..remote import RemoteJobs


@contextmanager
def open_store(settings: Settings | None = None, looks: bool = False) -> Iterator["Store"]:
    """The store of the settings; for a command that only looks, without making or changing anything there."""
    from ...models.store import Store

    store = Store.open(settings or Settings.from_environment(), read_only=looks)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def open_service(server: str | None) -> Iterator["RemoteJobs"]:
    """The jobs of the service that is named, or else of the one that the settings name."""
    from ..remote import RemoteJobs

    settings = Settings.from_environment()
    jobs = RemoteJobs(str(server or settings.server_url), settings.api_token)
    try:
        yield jobs
    finally:
        jobs.close()


@contextmanager
def open_jobs(server: str | None, looks: bool = False) -> Iterator["Jobs"]:
    """The jobs of the service that is named, or of the store, which a command that only looks leaves as it is."""
    settings = Settings.from_environment()
    if server or settings.server_url:
        with open_service(server) as there:
            yield there
        return
    from ..jobs import StoreJobs

    with open_store(settings, looks) as store:
        yield StoreJobs(settings, store, say=say_note)


def follow_job(jobs: "Jobs", job_id: str) -> JobStatus:
    """Show how a job goes on until it ends."""
    from ..watch import follow, make_display

    seconds = Settings.from_environment().store_seconds
    return follow(lambda: jobs.status(job_id), make_display(), seconds, hint=True, poll_seconds=jobs.poll_seconds)


@contextmanager
def stages() -> Iterator[Callable[[str], object]]:
    """Shows what is being done, one stage after the other."""
    from ..watch import make_display

    display = make_display()
    try:
        yield display.stage
    finally:
        display.close()


def finish(status: JobStatus, as_json: bool, open_it: bool, told: bool = False) -> int:
    """Show what became of a job, and return or raise what the command ends with.

    Args:
        status: of a job that has ended.
        as_json: print it as JSON.
        open_it: open its report in a browser.
        told: its notes have been said already.
    """
    if as_json:
        print_json(status.to_json())
    if status.failure is not None:
        raise status.failure
    if not as_json:
        print_fields(end_fields(status, told))
        if not open_it:
            say_next(next_steps(status))
    if open_it:
        open_report(Path(str(status.report)))
    return status.exit_code or 0


def print_status(status: JobStatus, as_json: bool) -> None:
    if as_json:
        print_json(status.to_json())
        return
    print_fields(status_fields(status))
    say_next(next_steps(status))


def print_json(document: dict[str, Any]) -> None:
    """One document, with escapes for what standard output cannot encode: bytes of names that are no UTF-8, too."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=2)
    click.echo(text)


def print_folder(folder: Path) -> None:
    """A folder alone: a link on a terminal; elsewhere its name byte for byte, for `cd "$(scanomaly …)"`."""
    if is_coloured(sys.stdout):
        print_fields([Field("", str(folder), folder)])
    else:
        click.echo(os.fsencode(folder))


def open_report(folder: Path) -> None:
    webbrowser.open((folder / "report.html").as_uri())


def say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        say_note(note)


def say_note(note: str) -> None:
    """Tell a person what they should know, where it is in nobody's way."""
    click.echo(plain(f"Note: {note}"), err=True)


def say_next(steps: str | None) -> None:
    """Tell a person what they may want to type next."""
    if steps is not None:
        sys.stdout.flush()
        print_fields([Field("", f"Next: {steps}", None, "dim")], err=True)
