"""How the values of a scan, such as Hounsfield units, become grey of 8 bits."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .errors import UsageError

Kind: TypeAlias = Literal["auto", "window", "percentile", "minmax"]

_CHOICES = "choose auto, minmax, window:CENTRE,WIDTH or percentile:LOW,HIGH"


@dataclass(frozen=True)
class Intensity:
    """A way to turn values into grey."""

    kind: Kind
    """`auto`: what the file's header says, else what suits its format. `window`: as a radiologist sets it.
    `percentile`: from one percentile of a file's values to another. `minmax`: from its smallest to its largest."""
    low: float = 0.0
    """The centre of a window in the file's units, or the percentile that is black."""
    high: float = 0.0
    """The width of a window, or the percentile that is white."""


def parse_intensity(text: str) -> Intensity:
    """Read `auto`, `minmax`, `window:40,400` or `percentile:1,99`.

    Raises:
        UsageError: it is none of them, or its numbers cannot be.
    """
    name, colon, rest = text.strip().partition(":")
    if name == "auto" and not colon:
        return Intensity("auto")
    if name == "minmax" and not colon:
        return Intensity("minmax")
    if name == "window" and colon:
        centre, width = _two_numbers(text, rest)
        if width <= 0:
            raise UsageError(f"intensity {text!r}: the width of a window is above 0, as in window:40,400")
        return Intensity("window", centre, width)
    if name == "percentile" and colon:
        low, high = _two_numbers(text, rest)
        if not 0 <= low < high <= 100:
            raise UsageError(f"intensity {text!r}: percentiles rise from 0 to 100, as in percentile:1,99")
        return Intensity("percentile", low, high)
    raise UsageError(f"unknown intensity {text!r}: {_CHOICES}")


def _two_numbers(text: str, numbers: str) -> tuple[float, float]:
    try:
        first, second = (float(number) for number in numbers.split(","))
    except ValueError:
        raise UsageError(f"intensity {text!r} needs two numbers: {_CHOICES}") from None
    if not (math.isfinite(first) and math.isfinite(second)):
        raise UsageError(f"intensity {text!r} needs two finite numbers: {_CHOICES}")
    return first, second
