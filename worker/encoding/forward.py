"""Encodes what is prepared, in a thread of its own, while other threads prepare more."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .plugins import EncoderLike

Promise: TypeAlias = Future[NDArray[np.float32]]
"""Of the vector of one scan, (dimension,) float32."""
_Item: TypeAlias = tuple[Any, Promise]

_AT_ONCE = 16
_GATHER = 8
_GATHER_SECONDS = 0.03
"""Scans that are encoded one by one take several times as long, and at a job's start take the cores from decoding.
So a few are waited for, for about as long as they take to decode; an encoder that is behind never waits."""


class Forward:
    """Encodes all scans that are prepared, of one batch or of several, as many at a time as the encoder likes.

    The encoder waits for a few scans more for a moment, never for long; how many are prepared is bounded.
    """

    def __init__(self, encoder: EncoderLike, watch: Callable[[], AbstractContextManager[None]]) -> None:
        """`watch` surrounds each call of the encoder."""
        self.encoder = encoder
        self._watch = watch
        self._at_once: int = getattr(encoder, "at_once", _AT_ONCE)
        self._places = threading.Semaphore(2 * self._at_once)
        self._prepared: SimpleQueue[_Item | None] = SimpleQueue()
        threading.Thread(target=self._run, name="encode", daemon=True).start()

    def encode(self, prepare: Callable[[], Any], promise: Promise) -> None:
        """Prepare the pixels of a scan in this thread, as soon as there is a place for them, and have them encoded.

        Raises whatever `prepare` raises, and then leaves the promise as it is. The promise fails with what the
        encoder raises.
        """
        self._places.acquire()
        try:
            pixels = prepare()
        except BaseException:
            self._places.release()
            raise
        self._prepared.put((pixels, promise))

    def close(self) -> None:
        """End the thread. Nothing may be waiting to be encoded."""
        self._prepared.put(None)

    def _run(self) -> None:
        while (items := self._take()) is not None:
            try:
                with self._watch():
                    vectors = self.encoder.encode([pixels for pixels, _ in items])
                for (_, promise), vector in zip(items, vectors, strict=True):
                    promise.set_result(vector)
            except Exception as error:  # whoever waits for the vectors gets it
                for _, promise in items:
                    promise.set_exception(error)
            self._places.release(len(items))

    def _take(self) -> list[_Item] | None:
        """Wait for a prepared scan, and take the others that are there, or come in a moment."""
        items: list[_Item] = []
        patience = _GATHER_SECONDS
        try:
            item = self._prepared.get()
            begun = time.monotonic()
            while item is not None:
                items.append(item)
                if len(items) == self._at_once:
                    break
                if len(items) >= _GATHER:
                    patience = 0.0
                item = self._prepared.get(timeout=max(0.0, begun + patience - time.monotonic()))
        except Empty:
            return items
        return items or None
