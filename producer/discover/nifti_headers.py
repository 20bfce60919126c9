"""How many slices a NIfTI or MGH file has along a plane."""

from collections.abc import Sequence

from ...models.sources.nifti import START_BYTES, VolumeHeaderError, read_header
from .reader import CutError, Inflating, Reader
from .slices import Plane, Slices, frame_names

_PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
"""By the axis that they lie across: to the patient's right, front and head (RAS+)."""

_MOST_SLICES = 100_000


def slice_names(reader: Reader, slices: Slices) -> Sequence[str]:
    """The frames of a volume: its chosen slices, in the volume's closest canonical orientation.

    Args:
        reader: at the file's beginning, compressed by gzip or not.
        slices: which slices are wanted.

    Returns:
        Such as `axial/012`. Of a file with one slice it is that one, in the plane it lies in; of one with several
        volumes, those of the first. None where the worker will not read it, and say why.

    Raises:
        OSError: the stream does.
    """
    try:
        lengths = _lengths(reader)
    except CutError:
        return ()
    plane = slices.plane
    if lengths.count(1) == 1:
        plane = _PLANES[lengths.index(1)]  # across it there are only lines
    count = lengths[_PLANES.index(plane)]
    return tuple(frame_names(plane, count, slices.choose(count)))


def _lengths(reader: Reader) -> list[int]:
    """The voxels of a volume from left to right, from back to front and upwards, as the worker takes them."""
    if reader.peek(2) == b"\x1f\x8b":
        reader = Reader(Inflating(reader, 31))
    try:
        header = read_header(reader.peek(START_BYTES))
    except VolumeHeaderError:
        raise CutError from None
    if max(header.shape) > _MOST_SLICES:
        raise CutError
    return [header.shape[axis.index] for axis in header.axes]
