"""What compressed pixels say of themselves, before a decoder allocates by it: JPEG, JPEG-LS and JPEG 2000."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

_SIZ = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 codestream begins: markers SOC and SIZ."""

_BOXES = b"\0\0\0\x0cjP  "
"""How a file of boxes begins, one of which holds the codestream."""

_JPEG = b"\xff\xd8\xff"
_ADOBE_BYTES = 14
"""Of Adobe's marker: the length that it says, and 12 bytes. libjpeg ignores a shorter one."""


class Codestream(NamedTuple):
    """What compressed data says of its picture."""

    kind: Literal["JPEG", "JPEG-LS", "JPEG 2000"]
    size: tuple[int, int]
    """Width and height."""
    bits: int
    """Of a sample."""
    samples: int
    """Of a pixel."""
    is_signed: bool = False
    """Whether values have a sign; only JPEG 2000 says it."""
    unread: str = ""
    """What of it no decoder reads, to be named in a sentence; empty where there is nothing."""


def begins_codestream(data: bytes) -> bool:
    """Whether compressed data begins as a picture does, rather than in the middle of one."""
    return data.startswith((_JPEG, _SIZ, _BOXES))


def read_codestream(data: bytes) -> Codestream | None:
    """What a JPEG, JPEG-LS or JPEG 2000 codestream says; None of another one."""
    if data.startswith(_JPEG):
        return _jpeg(data)
    start = data.find(_SIZ)
    return None if start < 0 else _jpeg_2000(data, start)


def _jpeg(data: bytes) -> Codestream | None:
    for marker, at in _jpeg_segments(data):
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            size = _number(data, at + 7), _number(data, at + 5)
            unread = ""
            if marker in (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF):
                unread = "hierarchical JPEG"
            elif not size[1]:
                unread = "JPEG that tells its height at its end"
            return Codestream(
                "JPEG-LS" if marker == 0xF7 else "JPEG", size, data[at + 4], data[at + 9], False, unread
            )
    return None


def _jpeg_2000(data: bytes, start: int) -> Codestream:
    across, down, left, top = (int.from_bytes(data[start + at : start + at + 4]) for at in (8, 12, 16, 20))
    samples = _number(data, start + 40)
    parts = data[start + 42 : start + 42 + 3 * samples]
    is_smaller = any(parts[1::3].strip(b"\1")) or any(parts[2::3].strip(b"\1"))
    return Codestream(
        "JPEG 2000",
        (across - left, down - top),
        max((part & 0x7F for part in parts[::3]), default=0) + 1,
        samples,
        any(part & 0x80 for part in parts[::3]),
        "JPEG 2000 with samples of several sizes" if is_smaller else "",
    )


def jpeg_colours(data: bytes) -> str | None:
    """How the three samples of a JPEG codestream are coded.

    Returns:
        `Adobe` where Adobe's marker says it, which every decoder obeys; `RGB` by the names of the samples;
        `YBR_FULL` where a JFIF marker is there; None where it says nothing.
    """
    has_jfif = names_rgb = False
    for marker, at in _jpeg_segments(data):
        if marker == 0xEE and _number(data, at + 2) >= _ADOBE_BYTES and data[at + 4 : at + 9] == b"Adobe":
            return "Adobe"
        if marker == 0xE0 and data[at + 4 : at + 8] == b"JFIF":
            has_jfif = True
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            names_rgb = data[at + 10 : at + 19 : 3] in (b"RGB", b"rgb")
    return "RGB" if names_rgb else "YBR_FULL" if has_jfif else None


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2])


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers before the compressed data of a JPEG file, and where they are."""
    if data[:2] != b"\xff\xd8":
        return
    position = 2
    while position + 10 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        yield marker, position
        position += 2 + _number(data, position + 2)
