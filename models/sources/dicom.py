"""What who submits and the workers must know of DICOM alike: what is DICOM, and how its elements are written."""

import re
import zlib
from typing import Literal, TypeAlias, cast

Order: TypeAlias = Literal["little", "big"]

_PREAMBLE_BYTES = 128
_GROUPS = (0x0002, 0x0008)
_VRS = frozenset(b"AE AS CS DA DS DT IS LO LT OB OW PN SH ST TM UI UL UN US UT".split())
_MOST_BYTES = 256
_MOST_FRAMES = 100_000

LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose length has four bytes, after two that are not used: PS3.5, 7.1.2."""

ITEM, ITEM_END, SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
UNDEFINED_LENGTH = 0xFFFF_FFFF
_IMPLICIT = ("", "1.2.840.10008.1.2", "1.2.840.113619.5.2")
"""The last is GE's, whose pixels only are big-endian."""
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_FIRST_GROUP = {b"\x08\0": "little", b"\0\x08": "big"}
PIXEL_DATA = frozenset({0x7FE0_0008, 0x7FE0_0009, 0x7FE0_0010})
"""Tags of pixels: floats of 32 and of 64 bits, and the usual integers."""


def is_vr(letters: bytes) -> bool:
    """Whether two bytes can be a value representation: PS3.5, 6.2."""
    return len(letters) == 2 and all(0x41 <= letter <= 0x5A for letter in letters)


def deflate_bits(syntax: str, head: bytes) -> int | None:
    """How zlib reads what follows the file's meta information, as its `wbits`; None where it is not deflated.

    Args:
        syntax: the transfer syntax that the file names, or an empty text.
        head: the first two bytes of what follows: files are written otherwise than they say.
    """
    if syntax != _DEFLATED or head in _FIRST_GROUP:
        return None
    has_zlib_header = len(head) == 2 and head[0] & 0x0F == 8 and int.from_bytes(head) % 31 == 0
    return zlib.MAX_WBITS if has_zlib_header else -zlib.MAX_WBITS


def element_encoding(syntax: str, head: bytes) -> tuple[Order, bool]:
    """How the elements of a data set are written: in which order of bytes, and whether all without their VR.

    Args:
        syntax: the transfer syntax that the file names, or an empty text.
        head: the first six bytes of the data set, which decide where they differ from the syntax.
    """
    order = _FIRST_GROUP.get(head[:2]) or ("big" if syntax == _BIG_ENDIAN else "little")
    is_implicit = not is_vr(head[4:6]) and (syntax in _IMPLICIT or head[:2] in _FIRST_GROUP)
    return cast(Order, order), is_implicit


def frame_count(value: bytes) -> int | None:
    """How many frames a file has by its Number of Frames (0028,0008).

    Args:
        value: the element's, as it is stored; empty where there is none.

    Returns:
        At least 1; None where the value is no number of frames.
    """
    text = value.strip(b" \0")
    if not text:
        return 1
    match = re.fullmatch(rb"\+?0*([0-9]{1,9})(\.0*)?", text)
    if match is None or int(match[1]) > _MOST_FRAMES:
        return None
    return max(1, int(match[1]))


def is_dicom(head: bytes) -> bool:
    """Whether content begins as a DICOM file: PS3.10, 7.1."""
    return head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM"


def is_bare_dicom(head: bytes) -> bool:
    """Whether content begins as the elements of a DICOM file do, without the preamble that files should have.

    Two elements of the groups 0002 or 0008 must follow each other, in the order of their tags, of which the first
    has at most 256 bytes.
    """
    return _two_elements(head, "little") or _two_elements(head, "big")


def _two_elements(head: bytes, order: Order) -> bool:
    first = _element(head, 0, order)
    if first is None:
        return False
    second = _element(head, first[1], order)
    return second is not None and first[0] < second[0]


def _element(head: bytes, start: int, order: Order) -> tuple[tuple[int, int], int] | None:
    """An element's tag and where the next begins; None where there can be none."""

    def number(begin: int, size: int) -> int:
        return int.from_bytes(head[begin : begin + size], order)

    tag = number(start, 2), number(start + 2, 2)
    if len(head) < start + 8 or tag[0] not in _GROUPS:
        return None
    vr = head[start + 4 : start + 6]
    if vr in LONG_VRS:
        length, begin = number(start + 8, 4), start + 12
    elif vr in _VRS:
        length, begin = number(start + 6, 2), start + 8
    else:
        length, begin = number(start + 4, 4), start + 8
    return (tag, begin + length) if length <= _MOST_BYTES else None
