"""Tells pictures and volumes by what they begin with. TIFF and DICOM have modules of their own."""

import struct

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")

_BMP = struct.Struct("<2s8xII")  # signature, offset of the pixels, length of the header that follows
_BMP_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_BMP_BEGINNING_BYTES = 14

_MGH = struct.Struct(">6i")  # version, width, height, depth, volumes, type
_MGH_TYPES = frozenset((0, 1, 3, 4))


def is_picture(head: bytes) -> bool:
    """Whether content begins as JPEG, PNG, GIF, WebP or BMP."""
    return head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or _is_bmp(head)


def _is_bmp(head: bytes) -> bool:
    """Its first two bytes may begin any text: the headers have to be right, too."""
    if not head.startswith(b"BM") or len(head) < _BMP.size:
        return False
    _, offset, length = _BMP.unpack_from(head)
    return length in _BMP_HEADERS and offset >= _BMP_BEGINNING_BYTES + length


def is_volume(head: bytes) -> bool:
    """Whether content begins as NIfTI-1, NIfTI-2 or MGH in one file.

    Args:
        head: the first 348 bytes at least, unpacked.
    """
    return head[344:348] == b"n+1\0" or head[4:12] == b"n+2\0\r\n\x1a\n" or _is_mgh(head)


def _is_mgh(head: bytes) -> bool:
    if len(head) < _MGH.size:
        return False
    version, *lengths, kind = _MGH.unpack_from(head)
    return version == 1 and min(lengths) > 0 and kind in _MGH_TYPES
