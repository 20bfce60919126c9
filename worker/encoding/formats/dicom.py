"""Tells DICOM by its content. pydicom is loaded when the first file of it comes."""

from importlib.util import find_spec

from ....models.intensity import Intensity
from ....models.states import FailureKind
from ..images import ImageFailure
from .content import Content, Reserve

_GROUPS = (0x0002, 0x0008)
_VRS = frozenset(b"AE AS CS DA DS DT IS LO LT OB OW PN SH ST TM UI UL UN US UT".split())
_MOST_BYTES = 1024


def is_dicom(data: bytes) -> bool:
    """Whether content is DICOM: by its preamble, or, without one, by its first two elements."""
    return data[128:132] == b"DICM" or _is_bare(data, "little") or _is_bare(data, "big")


def open_dicom(data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve) -> Content:
    """Open a DICOM file: see `open_content`.

    Raises:
        ImageFailure: it has no picture, or one that cannot be read; UNSUPPORTED where pydicom is not installed.
    """
    if find_spec("pydicom") is None:
        raise ImageFailure(
            FailureKind.UNSUPPORTED, "The file is DICOM: pip install 'scanomaly[medical]' on the worker."
        )
    from .dicom_pixels import DicomContent

    return DicomContent(data, intensity, max_pixels, reserve)


def _is_bare(data: bytes, order: str) -> bool:
    """Whether two elements of the groups 0002 and 0008 follow each other, in the order of their tags."""
    first = _element(data, 0, order)
    if first is None:
        return False
    second = _element(data, first[1], order)
    return second is not None and first[0] < second[0]


def _element(data: bytes, start: int, order: str) -> tuple[tuple[int, int], int] | None:
    """An element's tag and where the next begins; None where there can be none."""

    def number(begin: int, size: int) -> int:
        return int.from_bytes(data[begin : begin + size], "big" if order == "big" else "little")

    tag = number(start, 2), number(start + 2, 2)
    if len(data) < start + 8 or tag[0] not in _GROUPS:
        return None
    if data[start + 4 : start + 6] in _VRS:
        length, head = number(start + 6, 2), 8
        if data[start + 4 : start + 6] in (b"OB", b"OW", b"UN", b"UT"):
            length, head = number(start + 8, 4), 12
    else:
        length, head = number(start + 4, 4), 8
    return (tag, start + head + length) if length <= _MOST_BYTES else None
