"""The lookup tables of DICOM headers: values → units of the modality, values → grey, and palettes.

pydicom's own take the index in the type of the entries, so that tables of 8 bits have no more than 256 of them,
refuse entries of 12 bits, and unpack segmented palettes without a bound.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....models.states import FailureKind
from ..images import ImageFailure
from .dicom_header import Header

_COLOURS = ("Red", "Green", "Blue")
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


def look_up(values: NDArray[Any], table: Header) -> NDArray[Any] | None:
    """The entries of an item of a Modality or VOI LUT Sequence: DICOM PS3.3, C.11.1.1 and C.11.2.1.1.

    Args:
        values: whole numbers, of any type.
        table: has LUTDescriptor and LUTData.

    Returns:
        The entries in the same shape; None where it is no table.
    """
    found = _table(table)
    return None if found is None else _taken(found[0], values, found[1])


def look_up_grey(values: NDArray[Any], table: Header) -> NDArray[np.uint8] | None:
    """As `look_up` has it, as grey: the largest number that an entry can hold is white."""
    found = _table(table)
    if found is None:
        return None
    entries, first, bits = found
    grey = np.rint(entries.clip(0, (1 << bits) - 1) * (255.0 / ((1 << bits) - 1))).astype(np.uint8)
    return _taken(grey, values, first)


def look_up_colours(values: NDArray[Any], header: Header) -> NDArray[np.uint8]:
    """The colours of a palette: DICOM PS3.3, C.7.6.3.1.5, C.7.6.3.1.6 and C.7.9.2.

    Returns:
        (height, width, 3).

    Raises:
        ImageFailure: UNSUPPORTED, the header has no palette; TRUNCATED, it is damaged.
    """
    tables = [_palette(header, colour) for colour in _COLOURS]
    bits = _descriptor(header, "RedPaletteColorLookupTableDescriptor")[2]
    # Some that say 16 bits hold 8.
    shift = 8 if bits == 16 and max(int(table.max()) for table, _ in tables) > 255 else 0
    bands = [_taken((table >> shift).astype(np.uint8), values, first) for table, first in tables]
    return np.stack(bands, axis=-1)


def _table(table: Header) -> tuple[NDArray[Any], int, int] | None:
    """The entries, the value of the first of them, and their bits."""
    count, first, bits = _descriptor(table, "LUTDescriptor")
    entries = _entries(table, "LUTData", count)
    if not entries.size:
        return None
    most = int(entries.max()).bit_length()
    if not 8 <= bits <= 16:
        bits = 8 if most <= 8 else 16
    return entries, first, bits


def _palette(header: Header, colour: str) -> tuple[NDArray[Any], int]:
    count, first, bits = _descriptor(header, f"{colour}PaletteColorLookupTableDescriptor")
    entries = _entries(header, f"{colour}PaletteColorLookupTableData", count)
    segments = header.value(f"Segmented{colour}PaletteColorLookupTableData")
    if not entries.size and segments:
        kind = "u1" if bits == 8 else "<u2" if header.order == "little" else ">u2"
        try:
            entries = _expanded(np.frombuffer(segments[: len(segments) // 2 * 2], kind), count)
        except (ValueError, IndexError):
            raise ImageFailure(FailureKind.TRUNCATED, "The palette of the colours is damaged.") from None
    if not entries.size:
        raise ImageFailure(
            FailureKind.UNSUPPORTED, "The colours are those of a palette, which the file does not have."
        )
    return entries, first


def _descriptor(header: Header, name: str) -> tuple[int, int, int]:
    """How many entries, the value of the first, and the bits of each; 0 where it is not said."""
    numbers = [int(number) if number == number else 0 for number in header.numbers(name)]  # noqa: PLR0124
    count, first, bits = (*numbers, 0, 0, 0)[:3]
    return (count % (1 << 16) or 1 << 16), first, bits


def _entries(header: Header, name: str, count: int) -> NDArray[Any]:
    """Entries of 8 or 16 bits: by how many bytes there are, since headers say 16 of both."""
    data = header.value(name)
    if len(data) >= 2 * count:
        return np.frombuffer(data, "<u2" if header.order == "little" else ">u2", count)
    return np.frombuffer(data, np.uint8, min(count, len(data)))


def _signed_first(first: int, values: NDArray[Any]) -> int:
    """A number with a sign may have been read as one without, and the other way round: the values tell."""
    has_negative = bool(values.size) and values.min() < 0
    if has_negative and first >= 1 << 15:
        return first - (1 << 16)
    return (
        first + (1 << 16) if first < 0 and not has_negative and values.size and values.max() >= 1 << 15 else first
    )


def _taken(table: NDArray[Any], values: NDArray[Any], first: int) -> NDArray[Any]:
    """A table's entries for values; what is beyond its ends has its ends."""
    first = _signed_first(first, values)
    index = values.astype(np.int64)
    index -= first
    taken: NDArray[Any] = table.take(index, mode="clip")
    return taken


def _expanded(codes: NDArray[Any], count: int) -> NDArray[Any]:
    """The entries of a segmented palette, and no more than `count`."""
    parts: list[NDArray[Any]] = []
    left, position = count, 0

    def take(at: int) -> int:
        """Expand a discrete or linear segment; say where the next one begins."""
        nonlocal left
        kind, length = int(codes[at]), int(codes[at + 1])
        if kind == _DISCRETE and length:
            part, end = codes[at + 2 : at + 2 + length].astype(np.int64), at + 2 + length
        elif kind == _LINEAR and length and parts:
            start = int(parts[-1][-1])
            part, end = np.rint(np.linspace(start, int(codes[at + 2]), length + 1)[1:]).astype(np.int64), at + 3
        else:
            raise ValueError
        if end > codes.size:
            raise ValueError
        parts.append(part[:left])
        left -= parts[-1].size
        return end

    while left and position + 2 < codes.size:
        if codes[position] != _INDIRECT:
            position = take(position)
            continue
        # The offset is in bytes, in two words or four bytes, the least significant first.
        words = codes[position + 2 : position + 2 + 4 // codes.itemsize].astype(codes.dtype.newbyteorder("<"))
        at = int.from_bytes(words.tobytes(), "little") // codes.itemsize
        for _ in range(int(codes[position + 1])):
            if left:
                at = take(at)
        position += 2 + words.size
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
