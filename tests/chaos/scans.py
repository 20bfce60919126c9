"""Small pictures to score: `no/` and `yes/`, a few with the same content, and killers on request."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from .plugin.scanomaly_chaos import DEEDS, KILLER

_SIDE = 32


def draw_scans(folder: Path, count: int, seed: int = 0) -> None:
    """Write `count` scans, half of them below `no/`, half below `yes/`; each tenth is a copy of another."""
    random = np.random.default_rng(seed)
    for index in range(count):
        path = folder / ("no", "yes")[index % 2] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index % 10 == 9:
            shutil.copy(_path(folder, index - 6), path)
        else:
            _draw(random, bright=index % 2 == 1).save(path)


def draw_killer(path: Path, deed: str) -> None:
    """Write a scan that kills whoever encodes it, in the way that DEEDS names."""
    number = list(DEEDS).index(deed)
    picture = _draw(np.random.default_rng([1, number]), bright=False)
    picture.putpixel((0, 0), (*KILLER, number))
    picture.save(path)


def _path(folder: Path, index: int) -> Path:
    return folder / ("no", "yes")[index % 2] / f"{index:04d}.png"


def _draw(random: np.random.Generator, bright: bool) -> Image.Image:
    coarse = random.integers(0, 200, (8, 8, 3), dtype=np.uint8)
    if bright:
        coarse[2:5, 3:6] = 255
    coarse[0, 0] = 0  # a picture is no killer by chance
    return Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
