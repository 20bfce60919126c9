"""Read → decode → encode: threads prepare the next scans while the encoder computes."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from PIL import Image

from ...models.records import BatchScan, ScanResult
from ...models.states import FailureKind
from .files import ScanFiles
from .images import ImageFailure, decode, decoding_bytes
from .memory import MemoryBudget, NoRoomError, Share, give_freed_memory_back

if TYPE_CHECKING:
    import torch

    from .encoder import Encoder

_ENCODE_AT_ONCE = 32
_MAX_RESIZED_PIXELS = 50_000_000  # `encoder.MAX_RESIZED_PIXELS`: importing it would load torch
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Embedded:
    """What became of a batch: a result for every scan, and the new vectors by digest, (dimension,) float32."""

    results: list[ScanResult]
    vectors: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Prepared:
    """A scan that was read: its pixels as the encoder takes them, or None when its embedding is known."""

    scan_id: int
    sha256: str
    pixels: "torch.Tensor | None"


class Watch(Protocol):
    """Someone who takes a batch on which nothing gets done for a while for stuck."""

    def progress(self) -> None:
        """Something got done. Called by the thread that called `Pipeline.embed`, also while suspended."""

    def suspend(self) -> AbstractContextManager[None]:
        """What is done inside may take long, whatever `progress` says meanwhile. Called by any thread."""


class NoWatch:
    """The watch of who waits for ever."""

    def progress(self) -> None:
        pass

    def suspend(self) -> AbstractContextManager[None]:
        return nullcontext()


class LazyEncoder:
    """An encoder that is loaded when the first scan needs it: never, where every embedding is known already."""

    def __init__(self, load: "Callable[[], Encoder]") -> None:
        self._load = load
        self._lock = threading.Lock()
        self._begun = False
        self._loaded: Future[Encoder] = Future()

    def __call__(self, watch: Watch) -> "Encoder":
        """The encoder. The first of several threads loads it, and the others wait; an error is the same for all.

        Loading suspends `watch`: it may fetch weights.
        """
        with self._lock:
            first, self._begun = not self._begun, True
        if first:
            try:
                with watch.suspend():
                    encoder = self._load()
                self._loaded.set_result(encoder)
            except BaseException as error:
                self._loaded.set_exception(error)
        return self._loaded.result()


class Pipeline:
    """Embeds the scans of a batch with one encoder."""

    def __init__(self, encoder: LazyEncoder, threads: int, max_pixels: int, batch_memory: int) -> None:
        """Args:
        encoder: the encoder.
        threads: how many scans are read and decoded at one time.
        max_pixels: above which a scan is not decoded.
        batch_memory: bytes that the scans which are read and decoded at one time may take in all. What waits for
            the encoder comes on top: at most `threads` + 64 scans of the encoder's size.
        """
        self._encoder = encoder
        self._threads = threads
        self._max_pixels = max_pixels
        self._memory = MemoryBudget(batch_memory)
        give_freed_memory_back()

    def embed(
        self,
        scans: Sequence[BatchScan],
        files: ScanFiles,
        is_known: Callable[[str], bool],
        watch: Watch = NoWatch(),  # noqa: B008  (it has no state)
    ) -> Embedded:
        """Embed scans; one that cannot be embedded becomes a failure and stops nothing.

        Args:
            scans: the scans.
            files: reads them.
            is_known: whether a content with this digest has an embedding already; called from several threads, and
                more than once for a scan that has to wait for memory.
            watch: told of each scan that was prepared and of each chunk that was encoded.

        Raises:
            EncoderError: the encoder cannot be loaded.
        """

        def prepare(scan: BatchScan) -> _Prepared | ScanResult:
            try:
                return self._prepare(scan, files, is_known, watch)
            except ImageFailure as failure:
                return ScanResult(scan.id, failure=failure.kind, detail=failure.detail)

        results: list[ScanResult] = []
        vectors: dict[str, np.ndarray] = {}
        waiting: dict[str, torch.Tensor] = {}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            for prepared in _ahead(pool, prepare, scans, self._threads + _ENCODE_AT_ONCE, watch.progress):
                if isinstance(prepared, ScanResult):
                    results.append(prepared)
                    continue
                results.append(ScanResult(prepared.scan_id, sha256=prepared.sha256))
                if prepared.pixels is not None and prepared.sha256 not in vectors:
                    waiting[prepared.sha256] = prepared.pixels
                if len(waiting) == _ENCODE_AT_ONCE:
                    vectors |= self._encode(waiting, watch)
                    waiting = {}
        vectors |= self._encode(waiting, watch)
        return _fail_the_infinite(results, vectors)

    def _prepare(
        self, scan: BatchScan, files: ScanFiles, is_known: Callable[[str], bool], watch: Watch
    ) -> _Prepared:
        need = 0
        while True:
            try:
                with self._memory.hold(need) as share:
                    return self._try_to_prepare(scan, files, is_known, watch, share)
            except NoRoomError as full:
                # What was read is dropped, to wait with empty hands, and read again: seldom, and only large scans.
                need = full.need

    def _try_to_prepare(
        self,
        scan: BatchScan,
        files: ScanFiles,
        is_known: Callable[[str], bool],
        watch: Watch,
        share: Share,
    ) -> _Prepared:
        data = files.read(scan.path, share.reserve)
        digest = hashlib.sha256(data).hexdigest()
        if is_known(digest):
            return _Prepared(scan.id, digest, None)
        encoder = self._encoder(watch)

        def check(image: Image.Image) -> None:
            size = getattr(encoder, "image_size", (0, 0))  # an encoder of another package need not tell
            share.reserve(decoding_bytes(image, len(data)) + _resizing_bytes(image, size))

        return _Prepared(scan.id, digest, encoder.preprocess(decode(data, self._max_pixels, check)))

    def _encode(self, pixels: "dict[str, torch.Tensor]", watch: Watch) -> dict[str, np.ndarray]:
        if not pixels:
            return {}
        vectors = self._encoder(watch).encode(list(pixels.values()))
        watch.progress()
        return dict(zip(pixels, vectors, strict=True))


def _resizing_bytes(image: Image.Image, size: tuple[int, int]) -> int:
    """The image with its short side at the encoder's size, in Pillow's 4 bytes a pixel, and a half-resized one."""
    short, long = sorted(image.size)
    return 8 * min(_MAX_RESIZED_PIXELS, long * max(size) ** 2 // short)


def _fail_the_infinite(results: list[ScanResult], vectors: dict[str, np.ndarray]) -> Embedded:
    """A vector that is not finite would make the reference, and with it every score, not finite."""
    bad = {digest for digest, vector in vectors.items() if not np.isfinite(vector).all()}
    if not bad:
        return Embedded(results, vectors)
    detail = "the encoder's output is not finite: try --precision fp32"
    return Embedded(
        [
            ScanResult(result.scan_id, failure=FailureKind.NOT_FINITE, detail=detail)
            if result.sha256 in bad
            else result
            for result in results
        ],
        {digest: vector for digest, vector in vectors.items() if digest not in bad},
    )


def _ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[_T], _R],
    items: Iterable[_T],
    depth: int,
    progress: Callable[[], None],
) -> Iterator[_R]:
    """`pool.map` that holds at most `depth` results, so that a batch of any size fits into memory.

    Calls `progress` whenever an item is done, be it not the next to be yielded.
    """
    futures: deque[Future[_R]] = deque()

    def first() -> _R:
        while not futures[0].done():
            wait([future for future in futures if not future.done()], return_when=FIRST_COMPLETED)
            progress()
        progress()
        return futures.popleft().result()

    try:
        for item in items:
            futures.append(pool.submit(function, item))
            if len(futures) >= depth:
                yield first()
        while futures:
            yield first()
    finally:
        for future in futures:  # after an error, nobody waits for the rest
            future.cancel()
