"""Values of any number type → grey of 8 bits, by one scale for a whole file."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....models.intensity import Intensity
from ....models.states import FailureKind
from ..images import ImageFailure

Chunks = Callable[[], Iterable[NDArray[Any]]]
"""Called for a file's values, in parts of any shape; each call begins anew."""

SCALE_BYTES = 64 * 1024**2
"""An upper bound of what `make_scale` takes beside one chunk."""

_EMPTY_SHARE = 0.005
_EMPTY_GREY = 10
EMPTY_RULE = f"The slice is empty: at most {_EMPTY_SHARE:.1%} of its pixels are brighter than {_EMPTY_GREY} of 255."

_EXACT_VALUES = 4 * 1024**2
_THINNING = 3
"""Prime to the widths that images have: a power of two would meet the same columns in every row."""
_PART_VALUES = 1 << 16
_LARGEST_RANGE = 2.0**1000
_SHRINK = 2.0**-30


@dataclass(frozen=True)
class Scale:
    """A straight line from the value that is black to the one that is white. Safe to use from several threads."""

    low: float
    """This and what is below is 0."""
    high: float
    """What is above is 255; this is too, where it is not `low` as well."""

    @classmethod
    def window(cls, centre: float, width: float) -> "Scale":
        """A window by the function LINEAR of DICOM PS3.3, C.11.2.1.2.1.

        It begins at centre - width / 2 and ends one unit before centre + width / 2. Widths below 1, which LINEAR
        does not allow, are by LINEAR_EXACT, which ends at centre + width / 2.
        """
        end = centre + width / 2
        return cls(centre - width / 2, end - 1 if width >= 1 else end)

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Scale values.

        Args:
            values: integers or floats of any shape and byte order. Not a number is black; infinities are the ends.

        Returns:
            Grey in the same shape, rounded to the nearest, halves to even.
        """
        if values.dtype.kind == "b":
            values = values.astype(np.uint8)
        if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
            return by_table(values, self._scaled)
        grey = np.empty(values.shape, np.uint8)
        for where in _parts(values.shape):
            grey[where] = self._scaled(values[where])
        return grey

    def _scaled(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        low, high = self.low, self.high
        exact = values.astype(np.float64)
        if high - low > _LARGEST_RANGE:
            exact *= _SHRINK
            low, high = low * _SHRINK, high * _SHRINK
        np.nan_to_num(exact, copy=False, nan=low, posinf=math.inf, neginf=-math.inf)
        if high <= low:
            return np.where(exact > high, np.uint8(255), np.uint8(0))
        np.clip(exact, low, high, out=exact)
        exact -= low
        exact *= 255.0
        exact /= high - low
        return np.rint(exact, out=exact).astype(np.uint8)


def by_table(values: NDArray[Any], grey: Callable[[NDArray[Any]], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """What a function makes of each value by itself, faster where there are fewer values than pixels.

    Args:
        values: of any shape, number type and byte order.
        grey: takes such an array, and gives grey in its shape.
    """
    if values.dtype.kind not in "iu" or not values.size:
        return grey(values)
    low, high = int(values.min()), int(values.max())
    if high - low >= values.size:
        return grey(values)
    kind = values.dtype.newbyteorder("=")
    table = grey(np.arange(low, high + 1).astype(kind))
    # What is too far from the lowest for a number with a sign wraps to the same without.
    index = np.subtract(values, kind.type(low), dtype=kind).view(f"u{kind.itemsize}")
    taken: NDArray[np.uint8] = table.take(index, mode="clip")  # without looking whether one is beyond the end
    return taken


def make_scale(chunks: Chunks, intensity: Intensity, auto: Intensity | Scale) -> Scale:
    """Find the scale of a file.

    Args:
        chunks: the values of the whole file, where they are needed: for `minmax` and `percentile`, once.
        intensity: what is asked for.
        auto: what `auto` stands for: a scale, or an intensity that is not `auto`.

    Returns:
        Its scale. `minmax` and `percentile` are of finite values alone. Percentiles are interpolated as NumPy does
        by default. They are exact for integers of up to 16 bits, and for up to 4 Mi (4,194,304) other values; of
        more values, every third, ninth, … is taken, as few as keeps them below that number.

    Raises:
        ImageFailure: NOT_AN_IMAGE, no value is finite; and what `chunks` raises.
    """
    if intensity.kind == "auto":
        if isinstance(auto, Scale):
            return auto
        intensity = auto
    if intensity.kind == "window":
        return Scale.window(intensity.low, intensity.high)
    if intensity.kind == "percentile":
        return _percentiles(chunks(), intensity.low, intensity.high)
    return _range(chunks())


def is_empty(pixels: NDArray[np.uint8]) -> bool:
    """Whether there is nothing to see in a slice, by `EMPTY_RULE`.

    Args:
        pixels: height × width, or height × width × 3: then the brightest band of a pixel counts.
    """
    if pixels.ndim == 3:
        pixels = pixels.max(axis=2)
    return bool(np.count_nonzero(pixels > _EMPTY_GREY) <= _EMPTY_SHARE * pixels.size)


def _range(chunks: Iterable[NDArray[Any]]) -> Scale:
    low, high = math.inf, -math.inf
    for chunk in chunks:
        for where in _parts(chunk.shape):
            part = _finite(chunk[where])
            if part.size:
                # Python floats: a difference of two 32-bit values can be too large for 32 bits.
                low, high = min(low, float(part.min())), max(high, float(part.max()))
    if low > high:
        raise _nothing_finite()
    return Scale(low, high)


def _percentiles(chunks: Iterable[NDArray[Any]], low: float, high: float) -> Scale:
    """By counting as long as values are integers of few bits; what comes after that is sampled."""
    counts = np.zeros(3 << 15, np.int64)  # from the smallest int16 to the largest uint16
    sample = _Sample()
    for chunk in chunks:
        for where in _parts(chunk.shape):
            part = chunk[where]
            if part.dtype.kind in "iub" and part.dtype.itemsize <= 2:
                counts += np.bincount(part.reshape(-1).astype(np.int64) + (1 << 15), minlength=counts.size)
            else:
                sample.add(_finite(part).reshape(-1))
    total = int(counts.sum())
    if sample.size and total:  # pages of a file may differ in their types
        sample.add_counts(counts)
    elif total:
        return Scale(*(_counted(counts, total, percent) for percent in (low, high)))
    return sample.scale(low, high)


def _counted(counts: NDArray[np.int64], total: int, percent: float) -> float:
    """A percentile of counted values: `counts[i]` of them are i - 32768."""
    position = percent / 100 * (total - 1)
    ends = np.cumsum(counts)
    below, above = (int(np.searchsorted(ends, rank, "right")) for rank in (int(position), math.ceil(position)))
    return below + (above - below) * (position - int(position)) - (1 << 15)


class _Sample:
    """Values of which every n-th is kept, with n as small as fits."""

    def __init__(self) -> None:
        self.size = 0
        self._kept: NDArray[np.float64] = np.empty(0, np.float64)
        self._step = 1
        self._phase = 0
        """How many of the values to come are passed over before one is kept."""

    def add(self, values: NDArray[Any]) -> None:
        """Take values, at most `_PART_VALUES` of them."""
        kept = values[self._phase :: self._step]
        self._phase = (self._phase - values.size) % self._step
        end = self.size + kept.size
        if end > self._kept.size:
            self._kept.resize(min(max(2 * end, 4 * _PART_VALUES), _EXACT_VALUES + _PART_VALUES), refcheck=False)
        self._kept[self.size : end] = kept
        self.size = end
        if end > _EXACT_VALUES:
            thinned = self._kept[:end:_THINNING]
            self._phase += self._step * (-end % _THINNING)
            self._step *= _THINNING
            self.size = thinned.size
            self._kept[: self.size] = thinned

    def add_counts(self, counts: NDArray[np.int64]) -> None:
        """Take counted values as if they had come after all others: `counts[i]` of them are i - 32768."""
        for index in np.flatnonzero(counts):
            left = int(counts[index])
            while left:
                size = min(left, _PART_VALUES)
                self.add(np.full(size, index - (1 << 15), np.float64))
                left -= size

    def scale(self, low: float, high: float) -> Scale:
        if not self.size:
            raise _nothing_finite()
        kept = self._kept[: self.size]
        largest = max(-float(kept.min()), float(kept.max()))
        shrink = _SHRINK if largest > _LARGEST_RANGE else 1.0  # between two values, NumPy takes their difference
        kept *= shrink
        black, white = np.percentile(kept, (low, high), overwrite_input=True)
        return Scale(float(black) / shrink, float(white) / shrink)


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _parts(shape: tuple[int, ...]) -> Iterator[Any]:
    """Indices of parts of an array, of at most `_PART_VALUES` values: NumPy's copies of a whole one cost more."""
    if math.prod(shape) <= _PART_VALUES:
        yield ...
        return
    below = math.prod(shape[1:])
    if below > _PART_VALUES:
        for index in range(shape[0]):
            for rest in _parts(shape[1:]):
                yield (index, *rest) if isinstance(rest, tuple) else (index, rest)
        return
    step = max(1, _PART_VALUES // below)
    for start in range(0, shape[0], step):
        yield (slice(start, start + step),)


def _nothing_finite() -> ImageFailure:
    return ImageFailure(FailureKind.NOT_AN_IMAGE, "The image holds no finite pixel value.")
