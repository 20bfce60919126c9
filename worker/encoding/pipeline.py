"""Read → decode → encode: threads prepare scans while the encoder computes."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from PIL import Image

from ...models.records import BatchScan, FileState, ScanResult, Traits
from ...models.states import FailureKind
from .files import ScanFiles
from .forward import Forward, Promise
from .images import ImageFailure, decode, decoding_bytes
from .memory import MemoryBudget, NoRoomError, Share, give_freed_memory_back
from .plugins import EncoderLike
from .traits import measure

_MAX_RESIZED_PIXELS = 50_000_000  # `encoder.MAX_RESIZED_PIXELS`: importing it would load torch
_UNSURE_NS = 2_000_000_000
"""A file that was changed so shortly before it is read may change again and keep its time: some file systems count
in twos of seconds."""


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

        Raises:
            EncoderError: the encoder cannot be loaded, or cannot encode.
        """
        batch = _Batch(files, is_known, unchanged or {})
        try:
            yield _fail_the_infinite(self._embed(scans, batch))
        finally:
            for digest in batch.contents:
                del self._contents[digest]

    def _embed(self, scans: Sequence[BatchScan], batch: _Batch) -> Embedded:
        prepared = [self._threads.submit(self._prepare, scan, batch) for scan in scans]
        results: list[ScanResult] = []
        vectors: dict[str, np.ndarray] = {}
        traits: dict[str, Traits] = {}
        patches: dict[str, bytes] = {}
        try:
            for scan, future in zip(scans, prepared, strict=True):
                try:
                    digest, content = future.result()
                    if content is not None:
                        vectors[digest], packed = content.promise.result()
                        if packed is not None:
                            patches[digest] = packed
                        traits[digest] = cast(Traits, content.traits)
                    results.append(ScanResult(scan.id, sha256=digest))
                except ImageFailure as failure:
                    results.append(ScanResult(scan.id, failure=failure.kind, detail=failure.detail))
        finally:
            wait([future for future in prepared if not future.cancel()])  # after an error, the rest is not begun
        return Embedded(results, vectors, traits, patches, len(batch.contents & vectors.keys()), batch.read)

    def close(self) -> None:
        """End the threads. No batch may be under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._loaded is not None:
            self._loaded.result().close()

    def _prepare(self, scan: BatchScan, batch: _Batch) -> tuple[str, _Content | None]:
        """The digest of a scan's content, and the content that is encoded, or None when it is known already."""
        need, owner = 0, object()
        while True:
            try:
                with self._memory.hold(need) as share:
                    return self._try_to_prepare(scan, batch, share, owner)
            except NoRoomError as full:
                # What was read is dropped, to wait with empty hands, and read again: seldom, and only large scans.
                need = full.need

    def _try_to_prepare(
        self, scan: BatchScan, batch: _Batch, share: Share, owner: object
    ) -> tuple[str, _Content | None]:
        with self._watch():
            version = batch.files.version(scan.path)
            last = batch.unchanged.get(scan.path)
            if last is not None and version == (last.size, last.modified_ns):
                return last.sha256, None
            old_enough = version.modified_ns + _UNSURE_NS < time.time_ns()
            data = batch.files.read(scan.path, share.reserve)
            digest = hashlib.sha256(data).hexdigest()
        if old_enough:
            batch.read[scan.path] = FileState(*version, digest)
        if digest not in self._contents and batch.is_known(digest):
            return digest, None
        content = self._contents.setdefault(digest, _Content(owner))
        if content.owner is owner:
            batch.contents.add(digest)
            try:
                forward = self._forward()
                forward.encode(lambda: self._pixels(forward.encoder, content, data, share), content.promise)
            except NoRoomError:
                raise
            except BaseException as error:
                content.promise.set_exception(error)  # for the other scans with this content
                raise
        return digest, content

    def _pixels(self, encoder: EncoderLike, content: _Content, data: bytes, share: Share) -> Any:
        def check(image: Image.Image) -> None:
            size = getattr(encoder, "image_size", (0, 0))  # an encoder of another package need not tell
            share.reserve(decoding_bytes(image, len(data)) + _resizing_bytes(image, size))

        with self._watch():
            image = decode(data, self._max_pixels, check)
            content.traits = measure(image, str(image.format), len(data))
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


def _resizing_bytes(image: Image.Image, size: tuple[int, int]) -> int:
    """The image with its short side at the encoder's size, in Pillow's 4 bytes a pixel, and a half-resized one."""
    short, long = sorted(image.size)
    return 8 * min(_MAX_RESIZED_PIXELS, long * max(size) ** 2 // short)


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
