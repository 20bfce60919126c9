"""A batch → embeddings and scan states, in one commit."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..models.encoders import EncoderSpec
from ..models.errors import EncoderError
from ..models.queue import Queue
from ..models.records import Batch, ScanResult
from ..models.settings import Settings
from ..models.states import FailureKind
from ..models.store import Store
from .encoding.pipeline import LazyEncoder, Pipeline

if TYPE_CHECKING:
    from .encoding.encoder import Encoder

logger = logging.getLogger(__name__)


class Embedder:
    """Embeds batches. Keeps the encoder of the last one loaded: batches of one job come in a row."""

    def __init__(self, store: Store, queue: Queue, settings: Settings) -> None:
        self._store = store
        self._queue = queue
        self._settings = settings
        self._current: tuple[EncoderSpec, Pipeline] | None = None

    def embed(self, batch_id: int) -> None:
        """Embed a batch, write what became of it, and when it was the job's last one, have the job scored.

        A call too many does nothing: what there is to do is read in the store.

        Raises:
            EncoderError: the encoder of the batch's job cannot be loaded.
        """
        batch = self._store.begin_batch(batch_id)
        if batch is None:
            return
        vectors: dict[str, bytes] = {}
        if batch.attempts > self._settings.max_attempts:
            results = _give_up(batch)
        else:
            results, vectors = self._results(batch)
        self._store.finish_batch(batch, results, vectors)
        logger.info(
            "job %s, batch %d: %d scans, %d encoded, %d failed",
            *(batch.job_id, batch.id, len(results), len(vectors), sum(r.failure is not None for r in results)),
        )
        if self._store.begin_scoring(batch.job_id):
            self._queue.aggregate(batch.job_id)

    def _results(self, batch: Batch) -> tuple[list[ScanResult], dict[str, bytes]]:
        try:
            embedded = self._pipeline(batch.encoder).embed(
                batch.scans,
                Path(batch.root),
                lambda sha256: self._store.has_embedding(sha256, batch.encoder.key),
            )
        except EncoderError:
            self._current = None  # the next job with it tries again
            raise
        vectors = {sha256: vector.astype(np.dtype("<f4")).tobytes() for sha256, vector in embedded.vectors.items()}
        return embedded.results, vectors

    def _pipeline(self, spec: EncoderSpec) -> Pipeline:
        if self._current is None or self._current[0] != spec:
            self._current = None  # the old encoder's memory is free before the new one is loaded
            encoder = LazyEncoder(lambda: self._load(spec))
            self._current = (spec, Pipeline(encoder, self._settings.decode_threads, self._settings.max_pixels))
        return self._current[1]

    def _load(self, spec: EncoderSpec) -> "Encoder":
        from .encoding.encoder import load_encoder  # torch: only a process that encodes pays for it

        encoder = load_encoder(spec, self._settings.device, self._settings.hub_seconds)
        logger.info("encoder %s on %s", encoder.key, encoder.device)
        return encoder


def _give_up(batch: Batch) -> list[ScanResult]:
    detail = (
        f"a worker died {batch.attempts - 1} times while it had this scan's batch: the scan may not be to blame"
    )
    return [ScanResult(scan.id, failure=FailureKind.CRASHED_WORKER, detail=detail) for scan in batch.scans]
