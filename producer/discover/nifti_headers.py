"""How many slices a NIfTI or MGH file has along a plane."""

import logging
import math
from collections.abc import Sequence
from typing import Any

from .reader import CutError, Inflating, Reader
from .slices import Plane, Slices, frame_names

_PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
"""By the axis that they lie across: to the patient's right, front and head (RAS+)."""

_NIFTI_BYTES = (348, 540)
_MGH_BYTES = 284
_MGH_VERSION = (1).to_bytes(4, "big")
_MOST_SLICES = 100_000


def slice_names(reader: Reader, slices: Slices) -> Sequence[str]:
    """The frames of a volume: its chosen slices, in the volume's closest canonical orientation.

    Args:
        reader: at the file's beginning, compressed by gzip or not.
        slices: which slices are wanted.

    Returns:
        Such as `axial/012`. Of a file with one slice it is that one, in the plane it lies in; of one with several
        volumes, those of the first. None where the header is damaged.

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
    """The voxels of a volume from left to right, from back to front and upwards.

    nibabel says what these are, as it does to the worker: `worker/encoding/formats/nifti.py`.
    """
    if reader.peek(2) == b"\x1f\x8b":
        reader = Reader(Inflating(reader, 31))
    import numpy as np

    try:
        with np.errstate(all="ignore"):
            shape, affine = _mgh(reader) if reader.peek(4) == _MGH_VERSION else _nifti(reader)
            axes = _axes(np.asarray(affine, np.float64))
    except (CutError, OSError):
        raise
    except Exception:  # nibabel's errors quote values, and a damaged header can raise any of NumPy's
        raise CutError from None
    if len(shape) < 2 or not all(0 < length <= _MOST_SLICES for length in shape):
        raise CutError
    return [(*shape, 1)[axis] for axis in axes]


def _nifti(reader: Reader) -> tuple[list[int], Any]:
    """The lengths and the affine of a NIfTI header: what may follow the header is not read."""
    head = reader.peek(4)
    size = min(int.from_bytes(head, "little"), int.from_bytes(head, "big"))
    if size not in _NIFTI_BYTES:
        raise CutError
    library = _nibabel()
    kind = library.Nifti1Header if size == _NIFTI_BYTES[0] else library.Nifti2Header
    header = kind(reader.read(size), check=False)
    if not bytes(header["magic"]).startswith(b"n+"):  # a half of a pair
        raise CutError
    header.check_fix(_silent())
    return [int(length) for length in header.get_data_shape()], header.get_best_affine()


def _mgh(reader: Reader) -> tuple[list[int], Any]:
    header = _nibabel().freesurfer.mghformat.MGHHeader(reader.read(_MGH_BYTES), check=False)
    header.check_fix(_silent())
    return [int(length) for length in header.get_data_shape()], header.get_affine()


def _axes(affine: Any) -> list[int]:
    """The axis of the file that is closest to each of right, front and head.

    Args:
        affine: 4 × 4, float64, from indices to millimetres to the patient's right, front and head.
    """
    directions = _nibabel().io_orientation(affine)[:, 0].tolist()
    lost = [direction for direction in range(3) if direction not in directions]
    # An axis that the affine makes a point, as 2-D images have it, takes what is left.
    found = [lost.pop(0) if math.isnan(direction) else int(direction) for direction in directions]
    return [found.index(direction) for direction in range(3)]


def _nibabel() -> Any:
    import nibabel
    from nibabel.freesurfer import mghformat  # noqa: F401  (it becomes a part of nibabel)

    return nibabel


def _silent() -> logging.Logger:
    """Takes what nibabel finds wrong with a header, and would quote."""
    logger = logging.Logger("silent")
    logger.disabled = True
    return logger
