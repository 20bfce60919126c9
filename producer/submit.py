"""Puts a job into the store, and then its messages into the queue."""

import gc
import os
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from ..models.background import repeating
from ..models.encoders import AUTO, DEFAULT_ENCODER, PRECISIONS, EncoderSpec, parse_encoder
from ..models.errors import BrokerUnreachableError, ReportError, SourceError, StoppedError, StoreUnreachableError
from ..models.intensity import parse_intensity
from ..models.interrupts import stop_signals_as_interrupt
from ..models.patience import patiently
from ..models.records import (
    AUTO_INTENSITY,
    DEFAULT_FALSE_ALARM_RATE,
    FoundScan,
    IgnoredFile,
    Job,
    NewJob,
    SubmissionKey,
)
from ..models.reports import check_replaceable
from ..models.scorers import DEFAULT_SCORERS, check_scorers, needs_patches, parse_scorers
from ..models.settings import Settings, expand_user
from ..models.sources.members import Limits
from ..models.sources.objects.urls import is_url, local_folder
from ..models.states import Label, Priority
from ..models.store import Store
from ..models.submissions import batch_sizes
from .datasets import is_dataset, resolve
from .discover.folders import Folder, PathList
from .discover.headers import holds_several
from .discover.pseudonyms import Pseudonyms, load_key, path_key
from .discover.scans import Files, Scan, Scans
from .discover.slices import Slices, parse_slices
from .groups import Groups
from .labels import Labels, make_labels
from .local import suitable_precision
from .named_files import NamedFiles

_COUNTED_FILES = 100
_PART_FILES = 10_000
"""Files in one transaction: SQLite lets nobody else write meanwhile."""
_BEAT_SECONDS = 2.0


class JobOptions(TypedDict, total=False):
    """What may be asked for beside the source, by the names that the API has for it; each has a default."""

    normal: Sequence[str]
    """Globs or sub-folders."""
    anomaly: Sequence[str]
    labels_file: str | Path | None
    """A CSV file with the columns path and label."""
    group: str | None
    """A column of `labels_file`, or a regular expression on the path."""
    encoder: str
    weights: str | Path | None
    """A checkpoint, instead of the model hub's."""
    precision: str
    scorers: Sequence[str]
    batch_size: int | None
    priority: str
    rehash: bool
    false_alarm_rate: float
    plane: str
    """In which volumes are cut: axial, coronal or sagittal."""
    slices: str
    """Which slices of volumes are scans: all, middle:K or every:K."""
    intensity: str
    """How values of more than 8 bits become grey: auto, minmax, window:CENTRE,WIDTH or percentile:LOW,HIGH."""
    hide_paths: bool
    """Whether ids stand for paths in all that leaves the machine."""


@dataclass(frozen=True)
class Request:
    """What a person asks for: a source, who is normal in it, and how to embed it.

    `source` is a folder, an archive, a volume, a URL, `-` for a list of paths on standard input,
    `kaggle:owner/name` or `sample:`.
    `notes` may say why another source or encoder than the usual one was taken.
    """

    source: str
    encoder: EncoderSpec
    slices: Slices = field(default_factory=Slices)
    intensity: str = AUTO_INTENSITY
    hide_paths: bool = False
    normal: Sequence[str] = ()
    anomaly: Sequence[str] = ()
    labels_file: Path | None = None
    group: str | None = None
    out: Path | None = None
    batch_size: int = 32
    priority: Priority = Priority.NORMAL
    follow_links: bool = False
    rehash: bool = False
    false_alarm_rate: float = DEFAULT_FALSE_ALARM_RATE
    scorers: tuple[str, ...] = DEFAULT_SCORERS
    options: JobOptions | None = None
    """What was asked for beside the source, as `make_request` got it: JSON has it, and it means the same in any
    folder. None for a request that another way than `make_request` made."""
    notes: dict[str, str] = field(default_factory=dict)
    files: NamedFiles = field(default_factory=NamedFiles)
    """Opens the source and the labels file."""


def make_request(
    source: str,
    settings: Settings,
    device: str | None = None,
    out: Path | None = None,
    follow_links: bool = False,
    files: NamedFiles | None = None,
    **options: Unpack[JobOptions],
) -> Request:
    """Read what is asked for. `files` opens what it names.

    Raises:
        UsageError: an option cannot be right.
        EncoderError: `precision` is auto, and no worker is installed here that would know the device.
    """
    notes = {}
    files = files or NamedFiles()
    precision = options.get("precision", PRECISIONS[0])
    if precision == AUTO:
        # Chosen here: a job has one, whoever takes its batches.
        precision, notes["encoder"] = suitable_precision(device or settings.device)
    intensity = options.get("intensity", AUTO_INTENSITY).strip()
    parse_intensity(intensity)
    weights, labels_file = options.get("weights"), options.get("labels_file")
    return Request(
        source,
        parse_encoder(
            options.get("encoder", DEFAULT_ENCODER), Path(weights) if weights else None, precision, files.open
        ),
        parse_slices(options.get("slices", "all"), options.get("plane", "axial")),
        intensity,
        options.get("hide_paths", False),
        options.get("normal", ()),
        options.get("anomaly", ()),
        Path(labels_file) if labels_file else None,
        options.get("group"),
        out,
        options.get("batch_size") or settings.batch_size,
        Priority(options.get("priority", Priority.NORMAL)),
        follow_links,
        options.get("rehash", False),
        options.get("false_alarm_rate", DEFAULT_FALSE_ALARM_RATE),
        parse_scorers(",".join(options.get("scorers", DEFAULT_SCORERS))),
        _portable(options | {"precision": precision}),
        notes,
        files,
    )


def _portable(options: JobOptions) -> JobOptions:
    """Options that mean the same in another folder, and that JSON has."""
    kept: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, "", ())}
    for name in ("labels_file", "weights"):
        if name in kept:
            kept[name] = os.path.abspath(kept[name])
    for name in ("normal", "anomaly", "scorers"):
        if name in kept:
            kept[name] = list(kept[name])
    return cast(JobOptions, kept)


@dataclass(frozen=True)
class Counts:
    """What a source holds: scans by label, other files by why they are ignored."""

    labels: Counter[Label | None]
    ignored: Counter[str]
    volumes: int


@dataclass(frozen=True)
class Prepared:
    """A request whose source was looked through, and whose labels are right. Nothing is stored yet."""

    request: Request
    source: Scans
    labels: Labels
    groups: Groups | None
    counts: Counts
    notes: dict[str, str]


def prepare(request: Request, settings: Settings, counted: Callable[[int], None] = lambda _: None) -> Prepared:
    """Find the scans, and check their labels.

    Args:
        request: what is asked for.
        settings: the settings.
        counted: told now and then how many files were found.

    Raises:
        UsageError, SourceError, DatasetError: the source or the labels are not as they should be.
        ReportError: the report folder holds something else, or cannot be written.
    """
    notes = dict(request.notes)
    check_scorers(request.scorers, request.encoder)
    if request.out is not None:
        check_report_folder(request.out, is_ours=settings.broker_url is None)
    source = _open_source(request, settings, notes)
    labels = make_labels(source.root, request.normal, request.anomaly, request.labels_file, request.files.open)
    groups = None
    if request.group is not None:
        groups = Groups(source.root, request.group, request.labels_file, request.files.open)
    counts = _count(source, labels, groups, counted)
    scans = counts.labels.total()
    if scans == 0:
        raise _no_image(source, counts.ignored)
    labels.check(counts.labels[Label.NORMAL], scans)
    if groups is not None:
        groups.check(scans)
    notes |= _rule_notes(request, labels, groups, counts)
    return Prepared(request, source, labels, groups, counts, notes)


def _rule_notes(request: Request, labels: Labels, groups: Groups | None, counts: Counts) -> dict[str, str]:
    """How labels and groups were found: as a sentence, and without names where paths are hidden."""
    notes = {"labels": "labels as they were submitted" if request.hide_paths else labels.note}
    if groups is not None:
        notes["groups"] = "groups as they were submitted" if request.hide_paths else groups.note
    elif counts.volumes:
        notes["groups"] = "groups by patient, where headers name one, or by volume"
    return notes


def _open_source(request: Request, settings: Settings, notes: dict[str, str]) -> Scans:
    pseudonyms = Pseudonyms(partial(load_key, settings))
    limits = Limits(member_bytes=settings.max_file_bytes)
    return Scans(_open_files(request, settings, notes), request.slices, pseudonyms, limits)


def _open_files(request: Request, settings: Settings, notes: dict[str, str]) -> Files:
    source = request.source
    if source == "-":
        return PathList(sys.stdin, request.follow_links)
    if is_dataset(source):
        dataset = resolve(source, settings)
        if dataset.note:
            notes["source"] = f"{notes['source']}; {dataset.note}" if "source" in notes else dataset.note
        return Folder(dataset.folder, request.follow_links)
    path = local_folder(source) if is_url(source) else source_folder(source)
    if path is None:
        from ..models.sources.objects.folder import ObjectFolder  # fsspec: only for who has an object store
        from .discover.objects import Objects, OneObject

        objects = ObjectFolder(source, settings.source_seconds)
        return OneObject(objects) if objects.is_file() else Objects(objects)
    real = request.files.real(path)
    if (real or path).is_file() and holds_several(path, request.files.open):
        if real is None:
            return PathList([str(path)], request.follow_links, name=str(path))
        return PathList([str(real)], request.follow_links, name=str(path), real_root=real.parent)
    return Folder(path, request.follow_links, real)


def source_folder(source: str) -> Path:
    """The path that a source names.

    Raises:
        SourceError: it begins with a ~ that stands for no folder.
    """
    try:
        return expand_user(source)
    except ValueError as error:
        raise SourceError(f"{source!r} {error}") from None


def _count(source: Scans, labels: Labels, groups: Groups | None, counted: Callable[[int], None]) -> Counts:
    by_label: Counter[Label | None] = Counter()
    ignored: Counter[str] = Counter()
    volumes = 0
    last: str | None = None
    for number, scan in enumerate(source.walk(), 1):
        if scan.reason is None:
            by_label[_label(scan, labels)] += 1
            _group(scan, groups)
            volumes += scan.volume is not None and scan.volume != last
            last = scan.volume
        else:
            ignored[scan.reason] += 1
        if number % _COUNTED_FILES == 0:
            counted(number)
    return Counts(by_label, ignored, volumes)


def _label(scan: Scan, labels: Labels) -> Label | None:
    """The label of a scan, or that of the file that it is a frame of."""
    label = labels.label(scan.path)
    return labels.label(scan.file) if label is None and scan.file is not None else label


def _group(scan: Scan, groups: Groups | None) -> str | None:
    """The group that the submitter's rule gives a scan, or else what its header says."""
    if groups is None:
        return scan.group
    return groups.group(scan.path) or (scan.file and groups.group(scan.file)) or scan.group


def _no_image(source: Scans, ignored: Counter[str]) -> SourceError:
    formats = "JPEG, PNG, BMP, GIF, TIFF, WebP, DICOM and NIfTI"
    also = ""
    if ignored:
        reason, files = ignored.most_common(1)[0]
        also = f" among its {ignored.total()} files ({files} of them: {reason})"
    return SourceError(
        f"{source.name} holds no image{also}: Scanomaly reads {formats} files, in sub-folders and archives too"
    )


def store_job(
    prepared: Prepared,
    store: Store,
    settings: Settings,
    call: Callable[[str], object],
    stored: Callable[[str, int], None] = lambda _job, _files: None,
    key: SubmissionKey | None = None,
) -> Job:
    """Write the job, in parts when it is large. Of one that is whole nothing can be lost: any worker will find it.

    Args:
        prepared: what to write.
        store: the store.
        settings: the settings.
        call: tells the workers of a job's batches, while the job is being written; may fail.
        stored: told after each part the job's id, and how many files are in the store.
        key: by which the submission is recognised when it is repeated.

    Returns:
        The job. It is not whole if it was cancelled or failed in the meantime.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; what was stored has failed.
        UsageError: the key that hides paths cannot be loaded.
        StoreUnreachableError: the store was away for too long.
        AlreadySubmittedError: there is a job with this key.
    """
    job = _new_job(prepared, settings, key)
    try:
        with stop_signals_as_interrupt():
            _store_parts(prepared, job, store, settings.store_seconds, call, stored)
    except KeyboardInterrupt:
        if not _abandon(store, job, "its submission was stopped before it was whole"):
            raise
        raise StoppedError(f"stopped before job {job.id} was whole: submit it again") from None
    except Exception as error:
        _abandon(store, job, f"its submission broke off ({error})")
        raise
    return store.find_job(job.id)


def _new_job(prepared: Prepared, settings: Settings, key: SubmissionKey | None) -> NewJob:
    request = prepared.request
    job_id = secrets.token_hex(5)
    # Its links are followed now, once: the service shows what is in this folder, and no other.
    folder = settings.home / "reports" / job_id if request.out is None else os.path.realpath(request.out)
    return NewJob(
        id=job_id,
        source=request.source,
        root=prepared.source.real_root,
        report_folder=os.path.abspath(folder),
        encoder=replace(request.encoder, patches=needs_patches(request.scorers)),
        batch_size=request.batch_size,
        notes=prepared.notes,
        priority=request.priority,
        follow_links=request.follow_links,
        rehash=request.rehash,
        intensity=request.intensity,
        path_key=path_key(settings) if request.hide_paths else None,
        false_alarm_rate=request.false_alarm_rate,
        scorers=request.scorers,
        key=key,
        options=cast(dict[str, Any] | None, request.options),
    )


def _store_parts(
    prepared: Prepared,
    job: NewJob,
    store: Store,
    store_seconds: float,
    call: Callable[[str], object],
    stored: Callable[[str, int], None],
) -> None:
    parts = _parts(prepared, job.batch_size)
    first = next(parts)
    store.submissions.add(job, first.scans, first.ignored, whole=first.last)
    done = first.files
    stored(job.id, done)
    if first.last:
        return
    gc.freeze()  # or the collector goes through all that was imported, again and again, for a million files
    with repeating(_BEAT_SECONDS, partial(_beat, store, job.id, call)):
        for part in parts:
            add = partial(store.submissions.add, job, part.scans, part.ignored, after=done, whole=part.last)
            if not patiently(store_seconds, add):
                return
            done += part.files
            stored(job.id, done)


def _beat(store: Store, job_id: str, call: Callable[[str], object]) -> None:
    # What workers were not told now they are told later.
    with suppress(StoreUnreachableError, BrokerUnreachableError):
        store.submissions.beat(job_id)
        call(job_id)


@dataclass(frozen=True)
class _Part:
    scans: list[FoundScan]
    ignored: list[IgnoredFile]
    last: bool

    @property
    def files(self) -> int:
        return len(self.scans) + len(self.ignored)


def _parts(prepared: Prepared, batch_size: int) -> Iterator[_Part]:
    """Cut what a source holds into parts of whole batches."""
    source = prepared.source
    scans: list[FoundScan] = []
    ignored: list[IgnoredFile] = []
    found = 0
    for scan in source.walk():
        if len(scans) + len(ignored) >= _PART_FILES + batch_size:
            ready = sum(batch_sizes(scans, batch_size)[:-1])  # the last batch may go on
            yield _Part(scans[:ready], ignored, last=False)
            scans, ignored = scans[ready:], []
        if scan.reason is None:
            label, group = _label(scan, prepared.labels), _group(scan, prepared.groups)
            scans.append(FoundScan(scan.path, label, group, scan.volume))
            found += 1
        else:
            ignored.append(IgnoredFile(scan.path, scan.reason))
    if found == 0:
        raise _no_image(source, Counter(file.reason for file in ignored))
    yield _Part(scans, ignored, last=True)


def _abandon(store: Store, job: NewJob, reason: str) -> bool:
    """False where nothing is to be given up, or the store is away: then the job fails by itself, a minute later."""
    with suppress(StoreUnreachableError):
        return store.submissions.abandon(job.id, reason)
    return False


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
