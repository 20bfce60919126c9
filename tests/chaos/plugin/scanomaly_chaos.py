"""An encoder to break workers with: real vectors without torch, slow on demand, and scans that kill who reads them.

It comes as a user's own encoder would: as an entry point, of the distribution beside this file.

Environment variables:
    CHAOS_SCAN_SECONDS: how long each scan takes to encode, so that a kill hits a batch in flight.
    CHAOS_GATE: a folder. A batch is only encoded once it holds a file named `all`, or as the worker's process id.
    CHAOS_DEEDS: a file that gets a line for each worker that a scan is about to kill.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

KILLER = (254, 1)
"""Red and green of a killer scan's first pixel; its blue is the index in DEEDS of what it does."""
DEEDS: dict[str, Callable[[], Any]] = {
    "exit": lambda: os._exit(1),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "out of memory": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(3600),
}
_SIDE, _DIMENSION = 8, 64


class ChaosEncoder:
    """A fixed random projection of the picture, 8 by 8 pixels small."""

    def __init__(self, key: str, device: str) -> None:
        self.key = key
        self.device = device
        self.dimension = _DIMENSION
        self._seconds = float(os.environ.get("CHAOS_SCAN_SECONDS", "0"))
        self._gate = os.environ.get("CHAOS_GATE")
        self._projection = np.random.default_rng(0).standard_normal((_SIDE * _SIDE * 3, _DIMENSION))

    def preprocess(self, image: Image.Image) -> NDArray[np.float64]:
        """The small picture's values, and last the deed of a killer scan, or -1."""
        red, green, blue = image.getpixel((0, 0))  # type: ignore[misc]
        deed = blue if (red, green) == KILLER else -1
        small = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float64)
        return np.append(small.ravel() / 255 - 0.5, deed)

    def encode(self, pixels: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
        while self._gate and not any(Path(self._gate, name).exists() for name in ("all", str(os.getppid()))):
            time.sleep(0.02)
        for scan in pixels:
            time.sleep(self._seconds)
            if scan[-1] >= 0:
                _kill(list(DEEDS)[int(scan[-1])])
        vectors = np.stack(pixels)[:, :-1] @ self._projection
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _kill(deed: str) -> None:
    diary = os.environ.get("CHAOS_DEEDS")
    if diary:
        with open(diary, "a") as file:
            file.write(f"{deed}\n")
    DEEDS[deed]()


def load(spec: Any, device: str) -> ChaosEncoder:
    return ChaosEncoder(spec.key, device)
