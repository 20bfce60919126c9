"""Puts a job into the store, and then its messages into the queue."""

import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..models.encoders import EncoderSpec
from ..models.errors import ReportError
from ..models.records import Job, NewJob
from ..models.reports import check_replaceable
from ..models.settings import Settings
from ..models.states import Priority
from ..models.store import Store
from .datasets import is_dataset, resolve
from .discover import Found, find_in_folder, find_in_list
from .labels import Labelled, label_scans


@dataclass(frozen=True)
class Request:
    """What a person asks for: a source, who is normal in it, and how to embed it.

    `source` is a folder, `-` for a list of paths on standard input, `kaggle:owner/name` or `sample:`.
    `notes` may say why another source or encoder than the usual one was taken.
    """

    source: str
    encoder: EncoderSpec
    normal: Sequence[str] = ()
    anomaly: Sequence[str] = ()
    labels_file: Path | None = None
    out: Path | None = None
    batch_size: int = 32
    priority: Priority = Priority.NORMAL
    follow_links: bool = False
    rehash: bool = False
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A request whose source was found and labelled. Nothing is stored yet."""

    request: Request
    found: Found
    labelled: Labelled
    notes: dict[str, str]


def prepare(request: Request, settings: Settings) -> Prepared:
    """Find and label the scans.

    Raises:
        UsageError, SourceError, DatasetError: the source or the labels are not as they should be.
        ReportError: the report folder holds something else, or cannot be written.
    """
    notes = dict(request.notes)
    if request.out is not None:
        check_report_folder(request.out, is_ours=settings.broker_url is None)
    if request.source == "-":
        found = find_in_list(sys.stdin, request.follow_links)
    elif is_dataset(request.source):
        dataset = resolve(request.source, settings)
        if dataset.note:
            notes["source"] = f"{notes['source']}; {dataset.note}" if "source" in notes else dataset.note
        found = find_in_folder(dataset.folder, request.follow_links)
    else:
        found = find_in_folder(Path(request.source).expanduser(), request.follow_links)
    labelled = label_scans(found, request.normal, request.anomaly, request.labels_file)
    return Prepared(request, found, labelled, notes | {"labels": labelled.note})


def store_job(prepared: Prepared, store: Store, settings: Settings) -> Job:
    """Write the job. From here on nothing of it can be lost: any worker will find it."""
    request = prepared.request
    job_id = secrets.token_hex(5)
    folder = request.out or settings.home / "reports" / job_id
    job = NewJob(
        id=job_id,
        source=request.source,
        root=str(prepared.found.root),
        report_folder=os.path.abspath(folder),
        encoder=request.encoder,
        batch_size=request.batch_size,
        notes=prepared.notes,
        priority=request.priority,
        follow_links=request.follow_links,
        rehash=request.rehash,
    )
    store.add_job(job, prepared.labelled.scans, prepared.found.ignored)
    return store.find_job(job_id)


def check_report_folder(folder: Path, is_ours: bool) -> None:
    """Find out now, not after an hour of embedding, that a report cannot go where it should.

    Args:
        folder: where it should go.
        is_ours: whether this machine will write it, and so must be able to.

    Raises:
        ReportError: the folder is a file, holds something else than a report, or cannot be written.
    """
    parent = Path(os.path.abspath(folder)).parent
    try:
        check_replaceable(folder)
        if is_ours:
            parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryDirectory(dir=parent, prefix=".scanomaly-report-").cleanup()
    except OSError as error:
        raise ReportError(
            f"the report folder {folder} cannot be written ({error.strerror}): name another with --out"
        ) from None
