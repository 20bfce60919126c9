"""Encodes what is prepared, in a thread of its own: beside the threads that prepare more, or in turn with them."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from itertools import repeat
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .plugins import EncoderLike, PatchingLike


class Encoded(NamedTuple):
    """What the encoder makes of one scan."""

    vector: NDArray[np.float32]
    """(dimension,)"""
    patches: bytes | None
    """As `worker/patches.py` packs them, nothing where they are not finite; None of an encoder that makes none."""


Promise: TypeAlias = Future[Encoded]
_Item: TypeAlias = tuple[Any, Promise]

_AT_ONCE = 16
_GATHER = 8
_GATHER_SECONDS = 0.03
"""Scans that are encoded one by one take several times as long. So a few are waited for, while some are being
prepared or came a moment ago; an encoder that is behind never waits."""


class Forward:
    """Encodes all scans that are prepared, of one batch or of several, as many at a time as the encoder likes.

    An encoder on the CPU takes turns with the preparing: all cores prepare, and then all cores encode. Its threads
    wait for one another at each step, so a thread that prepares beside them takes more from them than its own time.
    """

    def __init__(self, encoder: EncoderLike, watch: Callable[[], AbstractContextManager[None]]) -> None:
        """`watch` surrounds each call of the encoder."""
        self.encoder = encoder
        self._watch = watch
        self._at_once: int = getattr(encoder, "at_once", _AT_ONCE)
        self._in_turn = encoder.device == "cpu"
        self._gather = self._at_once if self._in_turn else min(_GATHER, self._at_once)
        self._changed = threading.Condition()
        self._prepared: list[_Item] = []
        self._preparing = 0
        self._encoding = 0
        self._closed = False
        threading.Thread(target=self._run, name="encode", daemon=True).start()

    def encode(self, prepare: Callable[[], Any], promise: Promise) -> None:
        """Prepare the pixels of a scan in this thread, as soon as there is a place for them, and have them encoded.

        Raises whatever `prepare` raises, and then leaves the promise as it is. The promise fails with what the
        encoder raises.
        """
        with self._changed:
            self._changed.wait_for(self._may_prepare)
            self._preparing += 1
        items: list[_Item] = []
        try:
            items.append((prepare(), promise))
        finally:
            with self._changed:
                self._preparing -= 1
                self._prepared += items
                self._changed.notify_all()

    def close(self) -> None:
        """End the thread. Nothing may be waiting to be encoded."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _may_prepare(self) -> bool:
        waiting = self._preparing + len(self._prepared)
        if self._in_turn:
            return not self._encoding and waiting < self._at_once
        return waiting + self._encoding < 2 * self._at_once

    def _run(self) -> None:
        while items := self._take():
            try:
                for (_, promise), encoded in zip(items, self._encode([pixels for pixels, _ in items]), strict=True):
                    promise.set_result(encoded)
            except Exception as error:  # whoever waits for the vectors gets it
                for _, promise in items:
                    promise.set_exception(error)
            with self._changed:
                self._encoding = 0
                self._changed.notify_all()

    def _encode(self, pixels: list[Any]) -> list[Encoded]:
        with self._watch():
            vectors = self.encoder.encode(pixels)
        patches: list[bytes] | None = None
        if isinstance(self.encoder, PatchingLike):
            with self._watch():
                patches = self.encoder.encode_patches(pixels)
        return list(map(Encoded, vectors, patches or repeat(None)))

    def _take(self) -> list[_Item]:
        """Wait for prepared scans, and take as many as are encoded at once; none when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._prepared or self._closed)
            while len(self._prepared) < self._gather and not self._closed:
                news = self._changed.wait(_GATHER_SECONDS)
                if not news and not self._preparing:
                    break
            items, self._prepared = self._prepared[: self._at_once], self._prepared[self._at_once :]
            self._encoding = len(items)
            return items
