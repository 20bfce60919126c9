"""Tells NIfTI and MGH by their content, and reads their headers, for who submits and for workers alike.

nibabel knows the fields, and the geometry. What a field means that holds nonsense is decided here, so that the
submitter counts the slices that the worker shows. Only what is needed to find the values can cost the picture: how
it lies in the patient, its size in millimetres and its units cannot.
"""

import logging
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal, TypeAlias

from ..states import FailureKind

START_BYTES = 560
"""More than any header that is read here has."""

_MAGIC = slice(344, 347)
_MAGIC_2 = slice(4, 7)
_SIZES = {1: 348, 2: 540}
_END_OF_LINE = (b"\r\n\x1a\n", b"\0\0\0\0")
"""Of NIfTI-2, after its magic: a file that was sent as a text has another."""
_EXTENDER_BYTES = 4

_INTENTS_OF_CIFTI = range(3000, 3100)
_ICOSAHEDRON_7 = (27307, 1, 6)
"""FreeSurfer's way to write 163,842 vertices in the first length, which has 16 bits; of more, it writes -1."""
_COLOURS = {128: 3, 2304: 4}
_NUMBERS = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_COMPLEX = (32, 1792, 2048)
_MGH_BEGINNING = struct.Struct(">6i")  # version, width, height, depth, volumes, type
#: By the codes of FreeSurfer's mri.h.
_MGH_NUMBERS = {0: "u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_MGH_OTHERS = {2: "long", 5: "bitmap", 6: "tensor", 7: "float_complex", 8: "double_complex", 9: "rgb"}

_Order: TypeAlias = Literal["<", ">"]


class VolumeHeaderError(Exception):
    """A header of no volume, or of one that is not read: `detail` is one sentence, and quotes no text."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class Axis:
    """The axis of a file that is closest to one direction of the patient."""

    index: int
    step: int
    """1: indices grow with the direction; -1: against it."""
    zoom: float
    """Millimetres from one index to the next; 0: unknown."""


@dataclass(frozen=True)
class VolumeHeader:
    """What a file says of its first volume."""

    format: str
    """`NIfTI` or `MGH`."""
    shape: tuple[int, int, int]
    volumes: int
    dtype: str
    """Of one value, or of one band of a colour, as NumPy writes it: `<i2`."""
    bands: int
    """1: grey; 3: RGB; 4: RGB and alpha."""
    offset: int
    """Bytes in the file before the volume."""
    axes: tuple[Axis, Axis, Axis]
    """Those to the patient's right, front and head."""
    slope: float = 1.0
    intercept: float = 0.0
    shown: tuple[float, float] | None = None
    """The value that the file says should be black, and the one that should be white."""


@dataclass(frozen=True)
class _Orientation:
    """Where the axes of a file lead."""

    directions: Sequence[Sequence[float]]
    """3 × 3, a column for each axis, of any length: to the patient's right, front and head."""
    zooms: Sequence[float]
    """A voxel's sides in millimetres; 0: unknown."""


def is_nifti(start: bytes) -> bool:
    """Whether content is NIfTI or MGH by its first `START_BYTES`, unpacked: the other half of a pair is not."""
    return _is_first(start) or _is_second(start) or _is_mgh(start)


def read_header(start: bytes) -> VolumeHeader:
    """Read the header of a volume.

    Args:
        start: the first `START_BYTES` of a file, unpacked; fewer only where it ends.

    Returns:
        What it says. An orientation that cannot be is passed over for the next: the sform, the qform, and the one
        that nibabel takes without either. Slope and intercept that cannot be are none.

    Raises:
        VolumeHeaderError: TRUNCATED, the file ends in the header; NOT_AN_IMAGE, it has no two sides of one voxel at
            least; UNSUPPORTED.
        ImportError: nibabel is not installed.
    """
    if _is_first(start):
        return _nifti(start, 1)
    if _is_second(start):
        return _nifti(start, 2)
    if _is_mgh(start):
        return _mgh(start)
    raise VolumeHeaderError(FailureKind.NOT_AN_IMAGE, "The file is neither NIfTI nor MGH.")


def _is_first(start: bytes) -> bool:
    return start[_MAGIC] in (b"n+1", b"ni1")


def _is_second(start: bytes) -> bool:
    if start[_MAGIC_2] not in (b"n+2", b"ni2"):
        return False
    size = _SIZES[2]
    return start[8:12] in _END_OF_LINE or size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4]))


def _is_mgh(start: bytes) -> bool:
    if len(start) < _MGH_BEGINNING.size:
        return False
    version, *lengths, volumes, kind = _MGH_BEGINNING.unpack_from(start)
    known = kind in _MGH_NUMBERS or kind in _MGH_OTHERS
    return version == 1 and min(lengths) > 0 and volumes >= 0 and known


def _nibabel() -> Any:
    """The library, which a process that reads other files need not load."""
    import nibabel
    from nibabel.freesurfer import mghformat  # noqa: F401  (it becomes a part of nibabel)

    # What it would log is of the header, which may hold names.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
    return nibabel


def _nifti(start: bytes, version: Literal[1, 2]) -> VolumeHeader:
    library, size = _nibabel(), _SIZES[version]
    if len(start) < size:
        raise _cut_short()
    kind = library.Nifti1Header if version == 1 else library.Nifti2Header
    header = kind(start[:size], _byte_order(start, version), check=False)
    if bytes(header["magic"]).startswith(b"ni"):
        raise _unsupported("The file is half of a NIfTI pair (.hdr and .img): convert it to NIfTI (.nii).")
    lengths = _lengths([int(length) for length in header["dim"]])
    if int(header["intent_code"]) in _INTENTS_OF_CIFTI and lengths[:3] == [1, 1, 1]:
        raise _unsupported("The file is CIFTI, which holds no volume of pictures.")
    dtype, bands = _values(int(header["datatype"]), header.endianness)
    slope, intercept = _rescale(float(header["scl_slope"]), float(header["scl_inter"]))
    low, high = float(header["cal_min"]), float(header["cal_max"])
    return VolumeHeader(
        format="NIfTI",
        shape=(lengths[0], lengths[1], lengths[2]),
        volumes=math.prod(lengths[3:]),
        dtype=dtype,
        bands=bands,
        offset=_offset(float(header["vox_offset"]), size),
        axes=_axes(_orientation(header, lengths)),
        slope=slope,
        intercept=intercept,
        shown=(low, high) if math.isfinite(low) and math.isfinite(high) and high > low else None,
    )


def _byte_order(start: bytes, version: Literal[1, 2]) -> _Order:
    """The one that makes sense of the number of dimensions, else of the header's size, else of the first length."""
    form, begin = ("2h", 40) if version == 1 else ("2q", 16)

    def sense(order: _Order) -> tuple[bool, bool, int]:
        dimensions, length = struct.unpack_from(order + form, start, begin)
        (size,) = struct.unpack_from(f"{order}i", start)
        return 1 <= dimensions <= 7, size == _SIZES[version], -abs(length)

    return "<" if sense("<") >= sense(">") else ">"


def _lengths(dim: list[int]) -> list[int]:
    """Voxels along each axis, three at least: a 2-D image is one slice.

    Args:
        dim: the number of dimensions, and the length of each. What follows them means nothing.
    """
    count = dim[0] if 1 <= dim[0] <= 7 else len(list(takewhile(lambda length: length > 0, dim[1:])))
    lengths = dim[1 : count + 1]
    if dim[1:4] == [-1, 1, 1] or tuple(dim[1:4]) == _ICOSAHEDRON_7:
        raise _unsupported("The file holds values of a surface of FreeSurfer, and no volume of pictures.")
    if len(lengths) < 2:
        raise _damaged("it has fewer than two dimensions")
    if min(lengths[:2]) < 1 or min(lengths[:3]) < 0:
        raise _damaged("a dimension is not positive")
    return [max(1, length) for length in (*lengths, 1)]


def _offset(stated: float, header_bytes: int) -> int:
    """Where the values begin: after the header and its four bytes, unless it says something that can be."""
    usable = math.isfinite(stated) and stated >= header_bytes
    return int(stated) if usable else header_bytes + _EXTENDER_BYTES


def _values(code: int, order: _Order) -> tuple[str, int]:
    """The type of a value or band, and the number of bands, by NIfTI's code."""
    if code in _COLOURS:
        return "u1", _COLOURS[code]
    if code in _NUMBERS:
        return order + _NUMBERS[code], 1
    names = _nibabel().nifti1.data_type_codes
    name = names.label[code] if code in names.value_set() else None
    if code in _COMPLEX:
        raise _unsupported(f"The volume's values are complex ({name}): convert it to one of their magnitudes.")
    known = f"{name}, which is not read" if name else f"of a type that is not known (code {code})"
    raise _unsupported(f"The volume's values are {known}: convert it to float32.")


def _rescale(slope: float, intercept: float) -> tuple[float, float]:
    """Slope and intercept; none where they are not finite, or would make all values one."""
    usable = math.isfinite(slope) and math.isfinite(intercept) and intercept + slope != intercept
    return (slope, intercept) if usable else (1.0, 0.0)


def _orientation(header: Any, lengths: Sequence[int]) -> _Orientation:
    """The header's sform, else its qform, else what is so without either; each only where it can be."""
    codes = _nibabel().nifti1.xform_codes.value_set()
    coded = {name: int(header[name]) in codes and int(header[name]) > 0 for name in ("sform_code", "qform_code")}
    pixdim = [float(zoom) for zoom in header["pixdim"][:4]]
    zooms = [abs(zoom) if math.isfinite(zoom) else 0.0 for zoom in pixdim[1:]]
    if coded["sform_code"]:
        directions = [[float(part) for part in header[row][:3]] for row in ("srow_x", "srow_y", "srow_z")]
        if _is_usable(directions, lengths):
            return _Orientation(directions, [math.hypot(*column) for column in zip(*directions, strict=True)])
    if coded["qform_code"]:
        directions = _turned([float(header[name]) for name in ("quatern_b", "quatern_c", "quatern_d")])
        if _is_usable(directions, lengths):
            if pixdim[0] < 0:
                directions = [[first, second, -third] for first, second, third in directions]
            return _Orientation(directions, zooms)
    return _Orientation(_diagonal(-1, 1, 1), zooms)


def _turned(vector: Sequence[float]) -> list[list[float]]:
    """What a quaternion of length 1 does, of which only these three parts are stored: nifti1.h, METHOD 2.

    In 32 bits they are often too long for that. Then, as in the NIfTI library in C, they are made shorter.
    """
    length = math.hypot(*vector)
    fourth = math.sqrt(1 - length**2) if length < 1 else 0.0
    vector = [part / max(1.0, length) for part in vector]
    rows: list[list[float]] = _nibabel().quaternions.quat2mat([fourth, *vector]).tolist()
    return rows


def _is_usable(directions: Sequence[Sequence[float]], lengths: Sequence[int]) -> bool:
    """Whether axes along which there is more than one voxel lead somewhere, each to a place of its own."""
    import numpy as np

    columns = np.asarray(directions, np.float64)
    if not np.isfinite(columns).all():
        return False
    columns = columns[:, [length > 1 for length in lengths[:3]]]
    largest = np.abs(columns).max(axis=0)
    if not largest.all():
        return False
    columns = columns / largest
    return bool(np.linalg.matrix_rank(columns / np.linalg.norm(columns, axis=0)) == columns.shape[1])


def _axes(orientation: _Orientation) -> tuple[Axis, Axis, Axis]:
    """The axis of the file that is closest to each of right, front and head."""
    import numpy as np

    affine = np.eye(4)
    affine[:3, :3] = orientation.directions
    affine[:3, :3] /= np.maximum(np.abs(affine[:3, :3]).max(axis=0), np.finfo(np.float64).tiny)
    orientations = _nibabel().io_orientation(affine).tolist()
    lost = [direction for direction in range(3) if direction not in [found for found, _ in orientations]]
    axes: dict[int, Axis] = {}
    for index, (direction, step) in enumerate(orientations):
        if math.isnan(direction):  # it leads nowhere, as in 2-D images, and takes what is left
            axes[lost.pop(0)] = Axis(index, 1, 0.0)
        else:
            axes[int(direction)] = Axis(index, int(step), orientation.zooms[index])
    return axes[0], axes[1], axes[2]


def _diagonal(*parts: float) -> list[list[float]]:
    return [[part if row == column else 0.0 for column in range(3)] for row, part in enumerate(parts)]


def _mgh(start: bytes) -> VolumeHeader:
    kind = _nibabel().freesurfer.mghformat.MGHHeader
    if len(start) < kind._hdrdtype.itemsize:
        raise _cut_short()
    header = kind(start, check=False)  # without a mark that it is good, its orientation is the usual one
    width, height, depth, volumes = (int(length) for length in header["dims"])
    code = int(header["type"])
    if code not in _MGH_NUMBERS:
        raise _unsupported(f"The volume's values are {_MGH_OTHERS[code]}, which is not read: convert it to float.")
    zooms = [float(zoom) if math.isfinite(zoom) else 0.0 for zoom in header["delta"]]
    columns = [
        [float(part) * math.copysign(1, zoom) for part in column]
        for column, zoom in zip(header["Mdc"], zooms, strict=True)
    ]
    directions = list(zip(*columns, strict=True))
    if not _is_usable(directions, (width, height, depth)):
        directions = [(-1, 0, 0), (0, 0, -1), (0, 1, 0)]  # nibabel's usual one
    return VolumeHeader(
        format="MGH",
        shape=(width, height, depth),
        volumes=max(1, volumes),
        dtype=_MGH_NUMBERS[code],
        bands=1,
        offset=header.get_data_offset(),
        axes=_axes(_Orientation(directions, [abs(zoom) for zoom in zooms])),
    )


def _cut_short() -> VolumeHeaderError:
    return VolumeHeaderError(FailureKind.TRUNCATED, "The file ends before its volume does.")


def _damaged(what: str) -> VolumeHeaderError:
    return VolumeHeaderError(FailureKind.NOT_AN_IMAGE, f"The volume's header is damaged: {what}.")


def _unsupported(detail: str) -> VolumeHeaderError:
    return VolumeHeaderError(FailureKind.UNSUPPORTED, detail)
