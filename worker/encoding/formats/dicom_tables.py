"""The lookup tables of DICOM headers: values → grey, and palettes.

pydicom's own take the index in the type of the entries, so that tables of 8 bits have no more than 256 of them, and
unpack segmented palettes without a bound.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

_COLOURS = ("Red", "Green", "Blue")
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


def look_up(values: NDArray[Any], table: Dataset) -> NDArray[np.uint8]:
    """Grey by an item of a VOI LUT Sequence: DICOM PS3.3, C.11.2.1.1.

    Args:
        values: whole numbers, of any type.
        table: has LUTDescriptor and LUTData.

    Returns:
        Grey in the same shape; the largest number that an entry can hold is white.

    Raises:
        ValueError: it is no table.
    """
    count, first, bits = _descriptor(table.LUTDescriptor)
    data = table.LUTData
    entries = (
        _entries(data, count, _is_little(table)) if isinstance(data, bytes) else np.atleast_1d(np.asarray(data))
    )
    if not entries.size or not 8 <= bits <= 16:
        raise ValueError
    if first >= 1 << 15 and values.size and values.min() < 0:
        first -= 1 << 16  # a signed number that was read as one without a sign
    grey = np.rint(entries.clip(0, (1 << bits) - 1) * (255.0 / ((1 << bits) - 1))).astype(np.uint8)
    return _taken(grey, values, first)


def look_up_colours(values: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """The colours of a palette: DICOM PS3.3, C.7.6.3.1.5, C.7.6.3.1.6 and C.7.9.2.

    Returns:
        (height, width, 3).

    Raises:
        ValueError, AttributeError: it is no palette.
    """
    tables = [_palette(dataset, colour) for colour in _COLOURS]
    bits = _descriptor(dataset.RedPaletteColorLookupTableDescriptor)[2]
    # Some that say 16 bits hold 8.
    shift = 8 if bits == 16 and max(int(table.max()) for table, _ in tables) > 255 else 0
    bands = [_taken((table >> shift).astype(np.uint8), values, first) for table, first in tables]
    return np.stack(bands, axis=-1)


def _palette(dataset: Dataset, colour: str) -> tuple[NDArray[Any], int]:
    count, first, bits = _descriptor(dataset[f"{colour}PaletteColorLookupTableDescriptor"].value)
    plain = dataset.get(f"{colour}PaletteColorLookupTableData")
    if plain:
        entries = _entries(plain, count, _is_little(dataset))
    else:
        segments = dataset[f"Segmented{colour}PaletteColorLookupTableData"].value
        kind = "u1" if bits == 8 else "<u2" if _is_little(dataset) else ">u2"
        entries = _expanded(np.frombuffer(segments[: len(segments) // 2 * 2], kind), count)
    if not entries.size:
        raise ValueError
    return entries, first


def _descriptor(value: Any) -> tuple[int, int, int]:
    count, first, bits = (int(number) for number in value)
    return count or 1 << 16, first, bits


def _entries(data: bytes, count: int, is_little: bool) -> NDArray[Any]:
    """Entries of 8 or 16 bits: by how many bytes there are, since headers say 16 of both."""
    if len(data) >= 2 * count:
        return np.frombuffer(data, "<u2" if is_little else ">u2", count)
    return np.frombuffer(data, np.uint8, min(count, len(data)))


def _is_little(dataset: Dataset) -> bool:
    return dataset.original_encoding[1] is not False


def _taken(table: NDArray[np.uint8], values: NDArray[Any], first: int) -> NDArray[np.uint8]:
    """A table's entries for values; what is beyond its ends has its ends."""
    index = np.clip(values, first, first + table.size - 1).astype(np.int64)
    index -= first
    taken: NDArray[np.uint8] = table[index]
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
