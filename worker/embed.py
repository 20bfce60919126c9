"""A batch → embeddings and scan states, in one commit."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from ..models.encoders import EncoderSpec
from ..models.errors import BrokerUnreachableError
from ..models.patience import patiently
from ..models.queue import Queue
from ..models.reconcile import send_calls
from ..models.records import Batch, FileState, NewContent, ScanResult
from ..models.settings import Settings
from ..models.stages import LOADING_ENCODER
from ..models.states import FailureKind
from ..models.store import Store
from .encoding.files import ScanFiles, open_files
from .encoding.pipeline import Embedded, Pipeline
from .room import Room
from .watchdog import Watchdog

logger = logging.getLogger(__name__)

_DEATHS_BEFORE_SPLIT = 2
_PLACES = 4
_T = TypeVar("_T")


class Embedder:
    """Embeds batches, several at a time: while one is encoded, the next is read and the last is written.

    Keeps the encoder of the last one loaded: batches of one job come in a row. While the store is away, each step
    is tried again for as long as the settings say.
    """

    def __init__(self, store: Store, queue: Queue, settings: Settings) -> None:
        self._store = store
        self._queue = queue
        self._settings = settings
        self._room = Room()
        self._watchdog = Watchdog(settings.scan_seconds)
        self._lock = threading.Lock()
        self._under_way: set[int] = set()
        self._files_of: dict[tuple[str, bool], ScanFiles] = {}
        self._current: tuple[EncoderSpec, Pipeline] | None = None

    def embed(self, batch_id: int, worker: str) -> None:
        """Embed a batch, write what became of it, and call for what the job needs next.

        A call too many does nothing: what there is to do is read in the store.

        Args:
            batch_id: the batch.
            worker: the name of the worker that will hold it.

        Raises:
            EncoderError: the encoder of the batch's job cannot be loaded.
            StoreUnreachableError: the store was away for too long.
        """
        with self._lock:
            if batch_id in self._under_way:  # its message came twice; the store only knows that this worker has it
                return
            self._under_way.add(batch_id)
        try:
            self._embed_once(batch_id, worker)
        finally:
            self._under_way.discard(batch_id)

    def _embed_once(self, batch_id: int, worker: str) -> None:
        waiting = self._patiently(lambda: self._store.batches.waiting(batch_id))
        if waiting is None:
            return
        # One with which a worker died has the process to itself: neither is to be blamed for the other.
        with self._room.enter(waiting.encoder if waiting.deaths == 0 else self._room.alone()):
            batch = self._patiently(lambda: self._store.batches.begin(batch_id, worker))
            if batch is None:
                return
            if batch.deaths >= _DEATHS_BEFORE_SPLIT and len(batch.scans) > 1:
                logger.warning(
                    "job %s, batch %d: %d workers died with it: split", batch.job_id, batch.id, batch.deaths
                )
                self._patiently(lambda: self._store.batches.split(batch))
            else:
                self._embed(batch)
        self._call_next(batch.job_id)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For other work than batches that is to have the process to itself."""
        with self._room.enter(self._room.alone()):
            yield

    def _embed(self, batch: Batch) -> None:
        if batch.deaths >= max(_DEATHS_BEFORE_SPLIT, self._settings.max_attempts):
            self._finish(batch, Embedded(_give_up(batch)))
        else:
            with self._embedded(batch) as embedded:
                self._finish(batch, embedded)

    def _finish(self, batch: Batch, embedded: Embedded) -> None:
        results, encoded, files = embedded.results, embedded.encoded, embedded.files
        new = {
            sha256: NewContent(
                vector.astype(np.dtype("<f4")).tobytes(), embedded.traits[sha256], embedded.patches.get(sha256)
            )
            for sha256, vector in embedded.vectors.items()
        }
        self._patiently(lambda: self._store.batches.finish(batch, results, new, files, encoded))
        logger.info(
            "job %s, batch %d: %d scans, %d encoded, %d failed",
            *(batch.job_id, batch.id, len(results), encoded, sum(r.failure is not None for r in results)),
        )

    def _call_next(self, job_id: str) -> None:
        try:
            self._patiently(lambda: send_calls(self._store, self._queue, job_id))
        except BrokerUnreachableError as error:
            logger.warning("%s; the next calls of job %s are sent when it is back", error, job_id)

    @contextmanager
    def _embedded(self, batch: Batch) -> Iterator[Embedded]:
        encoder, paths = batch.encoder, [scan.path for scan in batch.scans]
        root, intensity = batch.root, batch.intensity
        unchanged: dict[str, FileState] = {}
        if not batch.rehash:
            unchanged = self._patiently(lambda: self._store.files.embedded(root, intensity, paths, encoder))

        def is_known(sha256: str) -> bool:
            return self._patiently(lambda: self._store.contents.is_known(sha256, encoder))

        with (
            self._files(batch).ahead([path for path in paths if path not in unchanged]) as files,
            self._pipeline(encoder, batch.job_id).embedded(
                batch.scans, files, is_known, unchanged, intensity
            ) as embedded,
        ):
            yield embedded

    def _files(self, batch: Batch) -> ScanFiles:
        """The files of a batch's job. Those of the last jobs are kept, with the archives that are open."""
        key = (batch.root, batch.follow_links)
        with self._lock:
            files = self._files_of.pop(key, None) or open_files(*key, self._settings)
            self._files_of[key] = files
            while len(self._files_of) > _PLACES:
                del self._files_of[next(iter(self._files_of))]  # a batch that uses it goes on doing so
            return files

    def _pipeline(self, spec: EncoderSpec, job_id: str) -> Pipeline:
        """The pipeline with this encoder, loaded for this job where it is not there. No batch with another is
        under way, or this one would not be."""
        with self._lock:
            if self._current is None or self._current[0] != spec:
                if self._current is not None:
                    self._current[1].close()
                self._patiently(lambda: self._store.note_stage(job_id, LOADING_ENCODER))
                self._current = None  # the old encoder's memory is free before the new one is loaded
                settings = self._settings
                pipeline = Pipeline(
                    lambda: self._load(spec, job_id),
                    settings.decode_threads,
                    settings.max_pixels,
                    settings.batch_memory,
                    self._watchdog.watch,
                )
                self._current = (spec, pipeline)
            return self._current[1]

    def _load(self, spec: EncoderSpec, job_id: str) -> Any:
        settings = self._settings
        if spec.plugin:
            from .encoding.plugins import load_plugin

            encoder: Any = load_plugin(spec, settings.device)
        else:
            from .encoding.encoder import load_encoder  # torch: only a process that encodes pays for it

            here = spec.at(settings.local_path)
            encoder = load_encoder(here, settings.device, settings.hub_seconds, threads=settings.encoder_threads)
        logger.info("encoder %s on %s", encoder.key, encoder.device)
        self._patiently(lambda: self._store.note_stage(job_id, None))
        return encoder

    def _patiently(self, function: Callable[[], _T]) -> _T:
        return patiently(self._settings.store_seconds, function)


def _give_up(batch: Batch) -> list[ScanResult]:
    detail = (
        f"{batch.deaths} workers died while they had this scan, the last ones with it alone: it crashes the "
        "decoder, takes too much memory, or hangs"
    )
    return [ScanResult(scan.id, failure=FailureKind.CRASHED_WORKER, detail=detail) for scan in batch.scans]
