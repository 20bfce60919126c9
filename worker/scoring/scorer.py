"""What every scorer does, and the sample of normals that those work on which keep them."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
Scores: TypeAlias = NDArray[np.float64]
Units: TypeAlias = NDArray[np.int64]

MOST_NORMALS = 10_000
"""Normals that a scorer keeps; of more, a random sample."""
_SEED = 0


class NoNormalsError(ValueError):
    """There are no normal scans to compare with."""


class Chunk(NamedTuple):
    """n normals: their vectors, (n, d) float32 or float64, and their units, (n,) int64 (see `units.py`)."""

    vectors: Vectors
    units: Units


class Scorer(Protocol):
    """Scores scans by how unlike the normals they are, from vectors alone; higher is less like them."""

    name: str

    def fit(self, chunks: Iterable[Chunk]) -> Self:
        """Read the normals once. The size of the chunks may differ, and does not matter.

        Raises:
            NoNormalsError: there are no normals.
            ValueError: a chunk's two parts differ in length.
            FloatingPointError: a vector is not finite.
        """

    def score(self, vectors: Vectors) -> Scores:
        """The scores of any scans: (n, d) → (n,) float64."""

    def score_left_out(self, vectors: Vectors, units: Units) -> Scores:
        """The scores of normals, from those of other units alone: (n, d) and (n,) → (n,) float64.

        NaN where no normal of another unit is left.
        """


def sample(chunks: Iterable[Chunk], limit: int = MOST_NORMALS) -> Chunk:
    """At most `limit` normals in their order, each as likely as any other: always the same draw, in one pass.

    Raises:
        NoNormalsError: there are no normals.
        ValueError: a chunk's two parts differ in length.
        FloatingPointError: a vector is not finite.
    """
    rng = np.random.default_rng(_SEED)
    kept: tuple[NDArray[Any], ...] | None = None
    for vectors, units in chunks:
        if len(vectors) != len(units):
            raise ValueError(f"{len(vectors)} vectors came with {len(units)} units")
        if not len(vectors):
            continue
        if not np.isfinite(vectors).all():
            raise FloatingPointError("the embedding of a normal scan holds NaN or infinity")
        # Each normal draws a number, and the lowest numbers stay.
        new: tuple[NDArray[Any], ...] = (rng.random(len(vectors)), vectors, units)
        parts = new if kept is None else tuple(np.concatenate(pair) for pair in zip(kept, new, strict=True))
        draws = parts[0]
        if len(draws) > limit:
            stay = np.sort(np.argpartition(draws, limit)[:limit])
            parts = tuple(part[stay] for part in parts)
        kept = parts
    if kept is None or not len(kept[0]):
        raise NoNormalsError("there are no normal scans to compare with")
    return Chunk(kept[1], kept[2])


def unit_rows(vectors: Vectors) -> NDArray[np.float64]:
    """Rows of length 1 in float64 (float32 rows are off by 1e-7); a row of zeros stays one."""
    rows = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1.0, lengths)
