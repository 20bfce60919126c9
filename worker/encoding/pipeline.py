"""Read → decode → encode: threads prepare scans while the encoder computes."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from typing import Any, TypeAlias, cast

import numpy as np

from ...models.records import AUTO_INTENSITY, BatchScan, FileState, ScanResult, Traits
from ...models.sources.addresses import split_frame
from ...models.states import FailureKind
from .files import Found, ScanFiles
from .formats.content import EmptySlice
from .forward import Forward, Promise
from .images import ImageFailure
from .memory import MemoryBudget, NoRoomError, Share, give_freed_memory_back
from .opened import OpenedFile
from .plugins import EncoderLike
from .traits import measure


@dataclass(frozen=True)
class Embedded:
    """What became of a batch."""

    results: list[ScanResult]
    """One for every scan, in their order."""
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    """The new ones by digest, (dimension,) float32. Some may have been encoded for another batch under way."""
    traits: dict[str, Traits] = field(default_factory=dict)
    """Of the same contents, and maybe of others whose vectors are not finite."""
    patches: dict[str, bytes] = field(default_factory=dict)
    """Of the same contents, where the encoder makes them."""
    encoded: int = 0
    """How many scans went through the encoder."""
    files: dict[str, FileState] = field(default_factory=dict)
    """By path, what the files held that were read and will tell by their times when they are changed."""


@dataclass(frozen=True)
class _Batch:
    """What the threads know of the batch that they work on."""

    files: ScanFiles
    intensity: str
    is_known: Callable[[str], bool]
    unchanged: Mapping[str, FileState]
    read: dict[str, FileState] = field(default_factory=dict)
    contents: set[str] = field(default_factory=set)
    """Digests of what is encoded for a scan of this batch."""


@dataclass(eq=False)
class _Content:
    """What is being encoded, for all batches under way that hold it."""

    owner: object
    """Stands for the scan that it is encoded for, in one batch: after a split, a scan may be in two under way."""
    promise: Promise = field(default_factory=Future)
    traits: Traits | None = None
    """There before the promise is kept."""


_Outcome: TypeAlias = tuple[str, _Content | None] | ImageFailure | EmptySlice
"""The digest of a scan's content and the content that is encoded, or None when it is known already; or why not."""


@dataclass(frozen=True)
class _Wanted:
    """A scan that was found. `owner` stands for it, and for nothing else: see `_Content.owner`."""

    path: str
    found: Found
    owner: object = field(default_factory=object)


class Pipeline:
    """Embeds batches with one encoder, any number of them at one time."""

    def __init__(
        self,
        load: Callable[[], EncoderLike],
        threads: int,
        max_pixels: int,
        batch_memory: int,
        watch: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Args:
        load: loads the encoder, when the first scan needs it: never, where every embedding is known already.
        threads: how many scans are read and decoded at one time.
        max_pixels: above which a scan is not decoded.
        batch_memory: bytes that the scans which are read and decoded at one time may take in all. What waits for
            the encoder comes on top: twice what it takes at once, in the encoder's size.
        watch: surrounds each step that takes long only if it hangs: reading and decoding of one scan, and one call
            of the encoder.
        """
        self._load = load
        self._loading = threading.Lock()
        self._loaded: Future[Forward] | None = None
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._max_pixels = max_pixels
        self._memory = MemoryBudget(batch_memory)
        self._contents: dict[str, _Content] = {}
        self._watch = watch
        give_freed_memory_back()

    @contextmanager
    def embedded(
        self,
        scans: Sequence[BatchScan],
        files: ScanFiles,
        is_known: Callable[[str], bool],
        unchanged: Mapping[str, FileState] | None = None,
        intensity: str = AUTO_INTENSITY,
    ) -> Iterator[Embedded]:
        """Embed scans; one that cannot be embedded becomes a failure and stops nothing. For any thread.

        The block that follows makes the new vectors known: to its end, other batches get them from here.

        Args:
            scans: the scans.
            files: reads them.
            is_known: whether a content with this digest has an embedding already; called from several threads, and
                more than once for a scan that has to wait for memory.
            unchanged: by path, what files held whose content had an embedding; one that still has that size and
                time is not read.
            intensity: how values of more than 8 bits become grey.

        Raises:
            EncoderError: the encoder cannot be loaded, or cannot encode.
        """
        batch = _Batch(files, intensity, is_known, unchanged or {})
        try:
            yield _fail_the_infinite(self._embed(scans, batch))
        finally:
            for digest in batch.contents:
                del self._contents[digest]

    def _embed(self, scans: Sequence[BatchScan], batch: _Batch) -> Embedded:
        prepared = [self._threads.submit(self._prepare, group, batch) for group in _by_file(scans)]
        results: list[ScanResult] = []
        vectors: dict[str, np.ndarray] = {}
        traits: dict[str, Traits] = {}
        patches: dict[str, bytes] = {}
        try:
            for scan, outcome in zip(scans, chain.from_iterable(map(Future.result, prepared)), strict=True):
                try:
                    if isinstance(outcome, Exception):
                        raise outcome
                    digest, content = outcome
                    if content is not None:
                        vectors[digest], packed = content.promise.result()
                        if packed is not None:
                            patches[digest] = packed
                        traits[digest] = cast(Traits, content.traits)
                    results.append(ScanResult(scan.id, sha256=digest))
                except ImageFailure as failure:
                    results.append(ScanResult(scan.id, failure=failure.kind, detail=failure.detail))
                except EmptySlice as empty:
                    results.append(ScanResult(scan.id, detail=empty.detail, skipped=True))
        finally:
            wait([future for future in prepared if not future.cancel()])  # after an error, the rest is not begun
        return Embedded(results, vectors, traits, patches, len(batch.contents & vectors.keys()), batch.read)

    def close(self) -> None:
        """End the threads. No batch may be under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._loaded is not None:
            self._loaded.result().close()

    def _prepare(self, scans: Sequence[BatchScan], batch: _Batch) -> list[_Outcome]:
        """What becomes of scans that may be of one file, in their order."""
        outcomes: list[_Outcome] = []
        files = batch.files.asked_once()
        found = [self._find(scan, files) for scan in scans]
        for place, run in groupby(zip(scans, found, strict=True), key=lambda pair: _file_of(pair[1])):
            if isinstance(place, ImageFailure):
                outcomes += [place for _ in run]
            else:
                outcomes += self._prepare_file([_Wanted(scan.path, cast(Found, here)) for scan, here in run], batch)
        return outcomes

    def _find(self, scan: BatchScan, files: ScanFiles) -> Found | ImageFailure:
        with self._watch():
            try:
                return files.find(scan.path)
            except ImageFailure as failure:
                return failure

    def _prepare_file(self, wanted: Sequence[_Wanted], batch: _Batch) -> list[_Outcome]:
        """The same for scans that are of one file, which is read once, or again after waiting for room."""
        outcomes: list[_Outcome] = []
        need = 0
        while len(outcomes) < len(wanted):
            try:
                with self._memory.hold(need) as share:
                    self._prepare_more(wanted, outcomes, batch, share)
            except NoRoomError as full:
                # What was read is dropped, to wait with empty hands, and read again: seldom, and only large scans.
                need = full.need
        return outcomes

    def _prepare_more(
        self, wanted: Sequence[_Wanted], outcomes: list[_Outcome], batch: _Batch, share: Share
    ) -> None:
        """Add the outcomes that are missing. What was read is gone when this returns, before the share is."""
        file = OpenedFile(batch.files, batch.intensity, self._max_pixels, share)
        for one in wanted[len(outcomes) :]:
            outcomes.append(self._try_to_prepare(one, batch, file))

    def _try_to_prepare(self, wanted: _Wanted, batch: _Batch, file: OpenedFile) -> _Outcome:
        version = wanted.found.version
        last = batch.unchanged.get(wanted.path)
        if last is not None and version == (last.size, last.modified_ns):
            return last.sha256, None
        try:
            with self._watch():
                digest = file.digest(wanted.found)
            if not file.may_change:
                batch.read[wanted.path] = FileState(*version, digest)
            return digest, self._content(digest, wanted, batch, file)
        except (ImageFailure, EmptySlice) as outcome:
            # What it was raised in, and because of, holds the file and whatever was made of it.
            outcome.__cause__ = outcome.__context__ = None
            return outcome.with_traceback(None)

    def _content(self, digest: str, wanted: _Wanted, batch: _Batch, file: OpenedFile) -> _Content | None:
        """The content that is encoded; None when it is known already."""
        if digest not in self._contents and batch.is_known(digest):
            return None
        content = self._contents.setdefault(digest, _Content(wanted.owner))
        if content.owner is wanted.owner:
            batch.contents.add(digest)
            try:
                forward = self._forward()
                forward.encode(lambda: self._pixels(forward.encoder, content, file, wanted.found), content.promise)
            except NoRoomError:
                raise
            except BaseException as error:
                content.promise.set_exception(error)  # for the other scans with this content
                raise
        return content

    def _pixels(self, encoder: EncoderLike, content: _Content, file: OpenedFile, found: Found) -> Any:
        size = getattr(encoder, "image_size", (0, 0))  # an encoder of another package need not tell
        with self._watch():
            image = file.picture(found, size)
            content.traits = measure(image, file.format, file.size)
            return encoder.preprocess(image)

    def _forward(self) -> Forward:
        """The encoder. The first of several threads loads it, and the others wait; an error is the same for all."""
        with self._loading:
            first = self._loaded is None
            loaded = self._loaded = self._loaded or Future()
        if first:
            try:
                loaded.set_result(Forward(self._load(), self._watch))
            except BaseException as error:
                self._loaded = None  # the next batch tries again
                loaded.set_exception(error)
        return loaded.result()


def _file_of(found: Found | ImageFailure) -> tuple[str, str | None] | ImageFailure:
    """What scans of one file have in common."""
    return found if isinstance(found, ImageFailure) else (found.address.file, found.address.member)


def _by_file(scans: Sequence[BatchScan]) -> Iterator[Sequence[BatchScan]]:
    """Scans in a row that may be of one file, by their paths: they are prepared in one thread."""
    for _, group in groupby(scans, key=lambda scan: split_frame(scan.path)[0]):
        yield list(group)


def _fail_the_infinite(embedded: Embedded) -> Embedded:
    """A vector that is not finite would make the reference, and with it every score, not finite."""
    bad = {digest for digest, vector in embedded.vectors.items() if not np.isfinite(vector).all()}
    bad |= {digest for digest, packed in embedded.patches.items() if not packed}
    if not bad:
        return embedded
    detail = "the encoder's output is not finite: try --precision fp32"
    results = [
        ScanResult(result.scan_id, failure=FailureKind.NOT_FINITE, detail=detail)
        if result.sha256 in bad
        else result
        for result in embedded.results
    ]
    finite = {digest: vector for digest, vector in embedded.vectors.items() if digest not in bad}
    return replace(embedded, results=results, vectors=finite)
