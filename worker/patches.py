"""How patches are kept: as bytes, between the room that makes them and the room that compares them."""

import struct

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<HHH")
_LARGEST = 127


def pack(patches: NDArray[np.float32]) -> bytes:
    """A scan's patches, (rows, columns, channels), as bytes: the shape, and 8-bit integers.

    Only the direction of each patch is kept: its largest value becomes 127.
    """
    largest = np.abs(patches).max(axis=2, keepdims=True)
    values = np.rint(patches * (_LARGEST / np.where(largest == 0, 1, largest)))
    return _HEADER.pack(*patches.shape) + values.astype(np.int8).tobytes()


def unpack(packed: bytes) -> NDArray[np.float32]:
    """Patches of length 1, (rows, columns, channels); one of zeros stays so."""
    patches = np.frombuffer(packed, np.int8, offset=_HEADER.size).reshape(_HEADER.unpack_from(packed))
    values = patches.astype(np.float32)
    lengths = np.linalg.norm(values, axis=2, keepdims=True)
    return np.asarray(values / np.where(lengths == 0, 1, lengths), dtype=np.float32)
