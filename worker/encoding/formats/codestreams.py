"""What compressed pixels say of themselves, before a decoder allocates by it: JPEG, JPEG-LS and JPEG 2000."""

from collections.abc import Iterator
from typing import NamedTuple

_SIZ = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 codestream begins: markers SOC and SIZ."""

_BOXES = b"\0\0\0\x0cjP  "
"""How a file of boxes begins, one of which holds the codestream."""


class Codestream(NamedTuple):
    """What compressed data says of its picture: (width, height), the bits of a sample, the samples of a pixel."""

    size: tuple[int, int]
    bits: int
    samples: int


def read_codestream(data: bytes) -> Codestream | None:
    """What a JPEG, JPEG-LS or JPEG 2000 codestream says; None of another one.

    Raises:
        ValueError: it is one that no decoder should be given.
    """
    _check_boxes(data)
    start = data.find(_SIZ)
    if start >= 0:
        return _jpeg_2000(data, start)
    found = _jpeg_start(data)
    return None if found is None else Codestream((_number(found, 7), _number(found, 5)), found[4], found[9])


def _check_boxes(data: bytes) -> None:
    """Refuse boxes before a JPEG 2000 codestream of no length: pydicom would look at the first one for ever."""
    if not data.startswith(_BOXES):
        return
    position = 12
    while position < len(data) and data[position + 4 : position + 8] != b"jp2c":
        length = int.from_bytes(data[position : position + 4])
        if length < 8:
            raise ValueError
        position += length


def _jpeg_2000(data: bytes, start: int) -> Codestream:
    across, down, left, top = (int.from_bytes(data[start + at : start + at + 4]) for at in (8, 12, 16, 20))
    samples = _number(data, start + 40)
    parts = data[start + 42 : start + 42 + 3 * samples]
    if any(parts[1::3].strip(b"\1")) or any(parts[2::3].strip(b"\1")):  # of half the size
        raise ValueError
    bits = max((part & 0x7F for part in parts[::3]), default=0) + 1
    return Codestream((across - left, down - top), bits, samples)


def has_adobe_marker(data: bytes) -> bool:
    """Whether a JPEG file says by the marker of Adobe how its colours are coded."""
    return any(marker == 0xEE and data[at + 4 : at + 9] == b"Adobe" for marker, at in _jpeg_segments(data))


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2])


def _jpeg_start(data: bytes) -> bytes | None:
    """The first ten bytes of the segment that describes the picture."""
    for marker, at in _jpeg_segments(data):
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return data[at : at + 10]
    return None


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
