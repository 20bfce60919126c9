"""Tells DICOM by its content, for who submits and for workers alike."""

from typing import Literal

_PREAMBLE_BYTES = 128
_GROUPS = (0x0002, 0x0008)
_VRS = frozenset(b"AE AS CS DA DS DT IS LO LT OB OW PN SH ST TM UI UL UN US UT".split())
_LONG_VRS = (b"OB", b"OW", b"UN", b"UT")
_MOST_BYTES = 256


def is_dicom(head: bytes) -> bool:
    """Whether content begins as a DICOM file: PS3.10, 7.1."""
    return head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM"


def is_bare_dicom(head: bytes) -> bool:
    """Whether content begins as the elements of a DICOM file do, without the preamble that files should have.

    Two elements of the groups 0002 or 0008 must follow each other, in the order of their tags, of which the first
    has at most 256 bytes.
    """
    return _two_elements(head, "little") or _two_elements(head, "big")


def _two_elements(head: bytes, order: Literal["little", "big"]) -> bool:
    first = _element(head, 0, order)
    if first is None:
        return False
    second = _element(head, first[1], order)
    return second is not None and first[0] < second[0]


def _element(head: bytes, start: int, order: Literal["little", "big"]) -> tuple[tuple[int, int], int] | None:
    """An element's tag and where the next begins; None where there can be none."""

    def number(begin: int, size: int) -> int:
        return int.from_bytes(head[begin : begin + size], order)

    tag = number(start, 2), number(start + 2, 2)
    if len(head) < start + 8 or tag[0] not in _GROUPS:
        return None
    vr = head[start + 4 : start + 6]
    if vr in _LONG_VRS:
        length, begin = number(start + 8, 4), start + 12
    elif vr in _VRS:
        length, begin = number(start + 6, 2), start + 8
    else:
        length, begin = number(start + 4, 4), start + 8
    return (tag, begin + length) if length <= _MOST_BYTES else None
