"""Read → decode → encode: threads prepare the next scans while the encoder computes."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ...models.records import BatchScan, ScanResult
from ...models.states import FailureKind
from .images import ImageFailure, decode, read_file

if TYPE_CHECKING:
    import torch

    from .encoder import Encoder

_ENCODE_AT_ONCE = 32
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


class LazyEncoder:
    """An encoder that is loaded when the first scan needs it: never, where every embedding is known already."""

    def __init__(self, load: "Callable[[], Encoder]") -> None:
        self._load = load
        self._lock = threading.Lock()
        self._begun = False
        self._loaded: Future[Encoder] = Future()

    def __call__(self) -> "Encoder":
        """The encoder. The first of several threads loads it, and the others wait; an error is the same for all."""
        with self._lock:
            first, self._begun = not self._begun, True
        if first:
            try:
                self._loaded.set_result(self._load())
            except BaseException as error:
                self._loaded.set_exception(error)
        return self._loaded.result()


class Pipeline:
    """Embeds the scans of a batch with one encoder."""

    def __init__(self, encoder: LazyEncoder, threads: int, max_pixels: int) -> None:
        self._encoder = encoder
        self._threads = threads
        self._max_pixels = max_pixels

    def embed(self, scans: Sequence[BatchScan], root: Path, is_known: Callable[[str], bool]) -> Embedded:
        """Embed scans; one that cannot be embedded becomes a failure and stops nothing.

        Args:
            scans: the scans.
            root: the folder that their paths are relative to.
            is_known: whether a content with this digest has an embedding already; called from several threads.

        Raises:
            EncoderError: the encoder cannot be loaded.
        """

        def prepare(scan: BatchScan) -> _Prepared | ScanResult:
            try:
                data = read_file(root / scan.path)
                digest = hashlib.sha256(data).hexdigest()
                if is_known(digest):
                    return _Prepared(scan.id, digest, None)
                return _Prepared(scan.id, digest, self._encoder().preprocess(decode(data, self._max_pixels)))
            except ImageFailure as failure:
                return ScanResult(scan.id, failure=failure.kind, detail=failure.detail)

        results: list[ScanResult] = []
        vectors: dict[str, np.ndarray] = {}
        waiting: dict[str, torch.Tensor] = {}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            for prepared in _ahead(pool, prepare, scans, self._threads + _ENCODE_AT_ONCE):
                if isinstance(prepared, ScanResult):
                    results.append(prepared)
                    continue
                results.append(ScanResult(prepared.scan_id, sha256=prepared.sha256))
                if prepared.pixels is not None and prepared.sha256 not in vectors:
                    waiting[prepared.sha256] = prepared.pixels
                if len(waiting) == _ENCODE_AT_ONCE:
                    vectors |= self._encode(waiting)
                    waiting = {}
        vectors |= self._encode(waiting)
        return _fail_the_infinite(results, vectors)

    def _encode(self, pixels: "dict[str, torch.Tensor]") -> dict[str, np.ndarray]:
        if not pixels:
            return {}
        return dict(zip(pixels, self._encoder().encode(list(pixels.values())), strict=True))


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


def _ahead(pool: ThreadPoolExecutor, function: Callable[[_T], _R], items: Iterable[_T], depth: int) -> Iterator[_R]:
    """`pool.map` that holds at most `depth` results, so that a batch of any size fits into memory."""
    futures: deque[Future[_R]] = deque()
    try:
        for item in items:
            futures.append(pool.submit(function, item))
            if len(futures) >= depth:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:  # after an error, nobody waits for the rest
            future.cancel()
