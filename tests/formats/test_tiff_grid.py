"""Samples × colours × planes × byte order × TIFF or BigTIFF × strips or tiles × compression × predictor.

Each file is written from known values, so what is right is known. That the file holds them, libtiff says, which
neither writes nor reads it here.
"""

import io
import itertools
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import pytest
import tifffile

from tests.pictures import decode

# pytest takes away the filters that images.py sets.
pytestmark = pytest.mark.filterwarnings("ignore")

HEIGHT, WIDTH = 48, 40
TILE = (16, 32)
ROWS = 20
LIMIT = 10_000

#: `make formats` tries all cases; the suite every 29th, which meets each value of each column.
STEP = 1 if os.environ.get("FORMATS") == "all" else 29

INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
KINDS = (*INTEGERS, "float16", "float32", "float64")
COLOURS = {"minisblack": 1, "miniswhite": 1, "rgb": 3}
COMPRESSIONS = ("none", "lzw", "deflate", "packbits", "zstd", "lzma")
LIBTIFF_PREDICTS = ("lzw", "deflate", "zstd", "lzma")
RANGES = {"uint16": (0, 4095), "int16": (-1000, 1000)}
"""As scanners have them; other whole numbers have all that their type can."""


class Case(NamedTuple):
    kind: str
    colours: str
    extra: int
    planes: str
    order: str
    is_big: bool
    layout: str
    compression: str
    is_predicted: bool

    @property
    def samples(self) -> int:
        return COLOURS[self.colours] + self.extra


def cases() -> Iterator[Case]:
    files = (("contig", "separate"), "<>", (False, True), ("strips", "tiles"))
    columns = (KINDS, COLOURS, (0, 1), *files, COMPRESSIONS, (False, True))
    for case in itertools.starmap(Case, itertools.product(*columns)):
        if (case.planes == "separate" and case.samples == 1) or (case.compression == "none" and case.is_predicted):
            continue
        yield case


def values(case: Case) -> np.ndarray:
    """(HEIGHT, WIDTH, samples)."""
    shape, dtype, random = (HEIGHT, WIDTH, case.samples), np.dtype(case.kind), np.random.default_rng(len(case.kind))
    if dtype.kind == "f":
        return random.normal(3, 50, shape).astype(dtype)
    low, high = RANGES.get(case.kind, (np.iinfo(dtype).min, np.iinfo(dtype).max))
    return random.integers(low, high, shape, dtype, endpoint=True)


def written(case: Case, stored: np.ndarray) -> bytes:
    options: dict[str, Any] = {"tile": TILE} if case.layout == "tiles" else {"rowsperstrip": ROWS}
    if case.samples > 1:
        options |= {"planarconfig": case.planes, "extrasamples": ["unspecified"] * case.extra}
    if case.compression != "none":
        predictor = 3 if case.kind.startswith("float") else 2
        options |= {"compression": case.compression, "predictor": predictor if case.is_predicted else None}
    if case.samples == 1:
        shaped = stored[..., 0]
    else:
        shaped = np.moveaxis(stored, -1, 0) if case.planes == "separate" else stored
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        shaped,
        byteorder=case.order,
        bigtiff=case.is_big,
        photometric=case.colours,
        metadata=None,
        **options,
    )
    return buffer.getvalue()


def expected(case: Case, stored: np.ndarray) -> np.ndarray:
    """As docs/formats.md has it: colours of 16 bits by their upper 8, grey of 8 as it is, all else scaled."""
    colours = stored[..., : COLOURS[case.colours]]
    if case.kind == "uint8":
        grey = colours.astype(int)
    elif case.kind == "uint16" and case.colours == "rgb":
        grey = colours.astype(int) // 256
    else:
        exact = colours.astype(np.longdouble)
        grey = np.rint((exact - exact.min()) * 255 / (exact.max() - exact.min())).astype(int)
    return np.broadcast_to(255 - grey if case.colours == "miniswhite" else grey, (HEIGHT, WIDTH, 3))


def shown(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, LIMIT)).astype(int)


def libtiffs(case: Case, data: bytes) -> np.ndarray:
    held = np.asarray(imagecodecs.tiff_decode(data)).reshape(
        (case.samples, HEIGHT, WIDTH) if case.planes == "separate" else (HEIGHT, WIDTH, case.samples)
    )
    return np.moveaxis(held, 0, -1) if case.planes == "separate" else held


@pytest.mark.parametrize("kind", KINDS)
def test_shows_the_values_that_the_file_holds(kind: str) -> None:
    for case in [case for case in cases() if case.kind == kind][::STEP]:
        stored = values(case)
        data = written(case, stored)
        if case.compression in LIBTIFF_PREDICTS or not case.is_predicted:
            assert np.array_equal(libtiffs(case, data), stored), case
        assert np.abs(shown(data) - expected(case, stored)).max() <= 1, case


def test_the_suite_meets_each_value_of_each_column() -> None:
    tried = [case for kind in KINDS for case in [case for case in cases() if case.kind == kind][::29]]
    for column, met in enumerate(zip(*tried, strict=True)):
        assert set(met) == {case[column] for case in cases()}
