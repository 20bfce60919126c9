"""Which slices of a volume become scans, and how frames are called in paths."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from ...models.errors import UsageError

Plane: TypeAlias = Literal["axial", "coronal", "sagittal"]
Which: TypeAlias = Literal["all", "middle", "every"]


@dataclass(frozen=True)
class Slices:
    """A choice of slices."""

    plane: Plane = "axial"
    """In which volumes of voxels are cut. The frames of other files are what they are."""
    which: Which = "all"
    number: int = 1
    """How many in the middle, or each how-manieth."""

    def choose(self, count: int) -> range:
        """The indices of the chosen slices, of so many that there are; the same number is left out at both ends."""
        if self.which == "middle":
            start = max(0, (count - self.number) // 2)
            return range(start, min(count, start + self.number))
        if self.which == "every":
            return range(((count - 1) % self.number) // 2, count, self.number)
        return range(count)


def parse_slices(text: str = "all", plane: str = "axial") -> Slices:
    """Read the options `--slices` and `--plane`.

    Args:
        text: `all`, `middle:K` for the K slices around the middle of a volume, or `every:K` for each K-th.
        plane: `axial`, `coronal` or `sagittal`.

    Raises:
        UsageError: one of them cannot be read.
    """
    if plane not in get_args(Plane):
        raise UsageError(f"--plane {plane}: there are {', '.join(get_args(Plane)[:-1])} and {get_args(Plane)[-1]}")
    match = re.fullmatch(r"(all)|(middle|every):0*([1-9][0-9]{0,8})", text, re.ASCII)
    if match is None:
        raise UsageError(f"--slices {text}: give all, middle:K or every:K, with a whole number above 0 as K")
    which = cast(Which, match[1] or match[2])
    return Slices(cast(Plane, plane), which, int(match[3] or 1))


def frame_names(kind: str, count: int, indices: Iterable[int]) -> Iterator[str]:
    """Names of frames, which sort as their indices do.

    Args:
        kind: what they are: a plane, `frame` or `page`.
        count: how many the file has, chosen or not: the same slice has one name, whatever is chosen.
        indices: from 0.

    Yields:
        Such as `axial/012`.
    """
    width = len(str(count - 1))
    for index in indices:
        yield f"{kind}/{index:0{width}}"
