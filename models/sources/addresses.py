"""A scan's path below its job's root → the file, what of an archive, and which frame.

An archive and a volume look like folders: `more.zip/brain.nii.gz/axial/012`. A file has no children, so a path
means one thing only; and only what is there tells which. The candidates are what the path alone tells.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from .archives import archive_ending

_FRAME = re.compile(r"(.+)/((?:axial|coronal|sagittal|frame|page)/[0-9]+)", re.DOTALL)


class Address(NamedTuple):
    """Where a scan is."""

    file: str
    """Below the root, with `/` between its parts."""
    member: str | None = None
    """The path in the archive that the file is."""
    frame: str | None = None
    """`axial/012`, say; None for a file with one picture."""


def split_frame(path: str) -> tuple[str, str | None]:
    """A path's file or member, and its frame; None where the path cannot end in one."""
    match = _FRAME.fullmatch(path)
    return (path, None) if match is None else (match[1], match[2])


def candidates(path: str) -> Iterator[Address]:
    """What a path may mean, to be tried in turn: the first whose file, and member, is there."""
    whole, frame = split_frame(path)
    yield Address(path)
    if frame is not None:
        yield Address(whole, None, frame)
    end = path.find("/")
    while end >= 0:
        if archive_ending(path[:end]) is not None:
            yield Address(path[:end], path[end + 1 :])
            if frame is not None and len(whole) > end:
                yield Address(path[:end], whole[end + 1 :], frame)
        end = path.find("/", end + 1)


def is_plain(path: str) -> bool:
    """Whether a path alone tells that it is a file's own."""
    return next(islice(candidates(path), 1, None), None) is None
