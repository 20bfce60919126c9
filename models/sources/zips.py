"""Zips: a directory at the end of the file tells where each member is, so members are read one by one.

The directory is read here and not by `zipfile`, which refuses a whole archive for one odd member and keeps a
kilobyte of objects for each. Names of fields and section numbers are those of PKWARE's APPNOTE.TXT 6.3.10.
"""

import io
import os
import re
import stat
import struct
import threading
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from .members import (
    RATIO_FREE_BYTES,
    ArchiveDamagedError,
    ArchiveError,
    Limits,
    Member,
    Tally,
    WalkedArchive,
    checked_name,
)
from .unpacking import Make, Stretch, Unpacked, ZipLzma, bzip2, deflate, read_fully

_STORED = 0
_DEFLATED = 8
_BZIP2 = 12
_LZMA = 14
_METHODS = frozenset({_STORED, _DEFLATED, _BZIP2, _LZMA})

_LOCAL = struct.Struct("<4s22xHH")  # 4.3.7; the signature, and the lengths of the name and of the extra field
_LOCAL_FLAGS = struct.Struct("<6xH")
_ENTRY = struct.Struct("<4sBBHHH4xLLLHHHHHLL")  # 4.3.12
_END = struct.Struct("<4sHHHHLLH")  # 4.3.16
_END_64 = struct.Struct("<4sQHHLLQQQQ")  # 4.3.14
_LOCATOR_64 = struct.Struct("<4sLQL")  # 4.3.15
_IN_EXTRA_64 = 0xFFFFFFFF
_EXTRA_64 = 1
_MOST_COMMENT_BYTES = 0xFFFF

_ENCRYPTED = 0x0001 | 0x0040  # 4.4.4: bits 0 and 6
_PATCH = 0x0020
_UTF_8 = 0x0800
_UNIX = 3
_MACOS = 19

_BACKSLASH = re.compile(rb"(?<![\x80-\xff])\\")

_PIECE = 1024**2
_DIRECTORY_PIECE = 1024**2

_NOT_A_ZIP = "The archive is cut short, or is not a zip file."
_DIRECTORY_DAMAGED = "The archive is damaged: its directory cannot be read."
_MEMBER_DAMAGED = "The file in the archive is damaged."


class _Directory(NamedTuple):
    """Where the central directory is, in bytes."""

    start: int
    size: int
    members: int
    """How many members it is said to have; of large archives a multiple of 65,536 may be missing."""
    shift: int
    """What is before the archive in the file: offsets in it do not count that."""


class _Entry(NamedTuple):
    """A member, as the directory tells it."""

    system: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    attributes: int
    raw_name: bytes
    is_damaged: bool


class ZipArchive(WalkedArchive):
    """A zip. Several threads unpack its members at once; they take turns only to read the file."""

    _stops_early = False  # only the whole directory tells whether members overlap

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        """Take a zip.

        Args:
            file: it stays the caller's to close.
            limits: what is too much.

        Raises:
            ArchiveDamagedError: it is not a zip, or is cut short.
            ArchiveError: it has too many members.
            OSError: the file cannot be read.
        """
        super().__init__(limits, "IQQQIBQ")  # place in the directory, then as `_row` has them
        self._file = file
        self._directory = _find_directory(file)
        if self._directory.members > limits.members:
            raise ArchiveError(f"The archive holds more than {limits.members} files.")

    def _walk(self) -> Iterator[Member]:
        tally = Tally(self._limits)
        for place, entry in enumerate(self._entries()):
            tally.header(0)
            raw = _decoded(entry.raw_name, entry.flags)
            name, reason = checked_name(raw)
            if not name or raw.endswith("/") or _kind(entry) == stat.S_IFDIR:
                continue
            tally.member(entry.size)
            if reason is None:
                reason = self._reason(entry)
                with self._lock:
                    if not self._index.add(name, reason, place, *_row(entry, reason)):
                        reason = "an earlier file of the archive has the same name"
            yield Member(name, entry.size, reason)
        self._check_overlaps()

    def _entries(self) -> Iterator[_Entry]:
        start, size, _, shift = self._directory
        directory = io.BufferedReader(Stretch(self._file, self._lock, start, size), _DIRECTORY_PIECE)
        while head := directory.read(_ENTRY.size):
            if len(head) < _ENTRY.size:
                raise ArchiveDamagedError(_DIRECTORY_DAMAGED)
            fields = _ENTRY.unpack(head)
            if fields[0] != b"PK\1\2":
                raise ArchiveDamagedError(_DIRECTORY_DAMAGED)
            name, extra, comment = fields[9:12]
            rest = directory.read(name + extra + comment)
            if len(rest) < name + extra + comment:
                raise ArchiveDamagedError(_DIRECTORY_DAMAGED)
            yield _entry(fields, rest[:name], rest[name : name + extra], shift)

    def _reason(self, entry: _Entry) -> str | None:
        reason = _kind_reason(entry)
        if reason is not None:
            return reason
        if entry.is_damaged or entry.offset + _LOCAL.size + entry.packed > self._directory.start:
            return "its entry in the archive's directory is damaged"
        if entry.size > self._limits.member_bytes:
            return self._too_large
        if entry.size > max(RATIO_FREE_BYTES, self._limits.ratio * entry.packed):
            return f"it would unpack to more than {self._limits.ratio} times its size"
        return None

    def _check_overlaps(self) -> None:
        """Refuse members that share bytes: a small file can stand for petabytes so.

        A zip bomb, D. Fifield, "A better zip bomb", WOOT 2019. The header in front of a member's content may be
        longer than is known here, so the ends are the least that they can be. All headers differ in their places,
        so of two that share content at least one begins within the other.
        """
        import numpy as np  # a tenth of a second, which a job without a zip need not wait for

        usable = np.array(self._index.usable(), dtype=bool)
        starts = np.array(self._index.columns[1], dtype=np.uint64)[usable]
        ends = np.array(self._index.columns[-1], dtype=np.uint64)[usable]
        order = np.argsort(starts, kind="stable")
        if (ends[order][:-1] > starts[order][1:]).any():
            raise ArchiveDamagedError("The archive's files overlap: a bomb, or damage.")

    def _size(self, number: int) -> int:
        return self._index.columns[3][number]

    def _read(self, number: int, name: str) -> bytes:
        _, _, _, size, expected, _, _ = self._index.row(number)
        stream = self._open(number, name)
        content = io.BytesIO()  # it gives its bytes away without a copy
        crc = 0
        while content.tell() < size:
            part = stream.read(min(_PIECE, size - content.tell())) or b""
            crc = zlib.crc32(part, crc)
            content.write(part)
        if crc != expected:
            raise ArchiveDamagedError(_MEMBER_DAMAGED)
        return content.getvalue()

    def _open(self, number: int, name: str) -> io.RawIOBase:
        _, offset, packed_bytes, size, _, method, _ = self._index.row(number)
        start = self._content(offset, name)
        if start + packed_bytes > self._directory.start or (method == _STORED and packed_bytes != size):
            raise ArchiveDamagedError(_MEMBER_DAMAGED)
        packed = Stretch(self._file, self._lock, start, packed_bytes)
        if method == _STORED:
            return packed
        return Stretch(Unpacked(packed, _decompressor(method, size)), threading.Lock(), 0, size)

    def _content(self, offset: int, name: str) -> int:
        """Where a member's content begins: behind its own header, which has to tell the same name."""
        with self._lock:
            self._file.seek(offset)
            head = read_fully(self._file, _LOCAL.size)
            if len(head) < _LOCAL.size or not head.startswith(b"PK\3\4"):
                raise ArchiveDamagedError(_MEMBER_DAMAGED)
            name_bytes: int
            extra_bytes: int
            _, name_bytes, extra_bytes = _LOCAL.unpack(head)
            raw_name = read_fully(self._file, name_bytes)
        if checked_name(_decoded(raw_name, *_LOCAL_FLAGS.unpack_from(head))) != (name, None):
            raise ArchiveDamagedError(_MEMBER_DAMAGED)
        return offset + _LOCAL.size + name_bytes + extra_bytes


def _decompressor(method: int, size: int) -> Make:
    if method == _DEFLATED:
        return deflate
    return bzip2 if method == _BZIP2 else lambda: ZipLzma(size)


def _kind_reason(entry: _Entry) -> str | None:
    if _kind(entry) not in (0, stat.S_IFREG):
        return "a link or a device, not a regular file"
    if entry.flags & _ENCRYPTED:
        return "it is encrypted"
    if entry.method not in _METHODS or entry.flags & _PATCH:
        return "it is packed by a method that is not supported"
    return None


def _row(entry: _Entry, reason: str | None) -> tuple[int, ...]:
    """Offset, packed bytes, bytes, CRC-32, method and the least end; zeros for an ignored member."""
    if reason is not None:
        return (0,) * 6
    end = entry.offset + _LOCAL.size + len(entry.raw_name) + entry.packed
    return entry.offset, entry.packed, entry.size, entry.crc, entry.method, end


def _kind(entry: _Entry) -> int:
    """The type of the file, as Unix has it; 0 where it is not told."""
    return stat.S_IFMT(entry.attributes >> 16) if entry.system in (_UNIX, _MACOS) else 0


def _decoded(raw: bytes, flags: int) -> str:
    """A name. Without the flag it should be in code page 437; many tools write UTF-8 nevertheless, which hardly any
    other text happens to be.

    Tools of Windows write `\\` between a path's parts, where 4.4.17 asks for `/`.
    """
    try:
        text = raw.decode("utf-8", "surrogateescape" if flags & _UTF_8 else "strict")
        return text.replace("\\", "/")
    except UnicodeDecodeError:
        # In the code pages of East Asia, of which none is told, a letter's second byte may be that of a backslash.
        return _BACKSLASH.sub(b"/", raw).decode("cp437")


def _entry(fields: tuple[int, ...], raw_name: bytes, extra: bytes, shift: int) -> _Entry:
    _, _, system, _, flags, method, crc, packed, size, _, _, _, _, _, attributes, offset = fields
    sizes = (size, packed, offset)
    large = _sizes_64(sizes, extra) if _IN_EXTRA_64 in sizes else sizes
    size, packed, offset = large or sizes
    return _Entry(system, flags, method, crc, packed, size, offset + shift, attributes, raw_name, large is None)


def _sizes_64(sizes: tuple[int, int, int], extra: bytes) -> tuple[int, int, int] | None:
    """The size, the packed size and the offset: 4.5.3. None if the field for the large ones is damaged.

    Without that field they are what they are.
    """
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == _EXTRA_64:
            field = extra[position : position + length]
            wanted = sizes.count(_IN_EXTRA_64)
            if len(field) < 8 * wanted:
                return None
            large = iter(struct.unpack_from(f"<{wanted}Q", field))
            size, packed, offset = (next(large) if size == _IN_EXTRA_64 else size for size in sizes)
            return size, packed, offset
        position += length
    return sizes


def _find_directory(file: BinaryIO) -> _Directory:
    """Find the central directory by the record at the end, which a comment may follow."""
    file_size = file.seek(0, os.SEEK_END)
    tail_start = max(0, file_size - _MOST_COMMENT_BYTES - _END.size - _LOCATOR_64.size - _END_64.size)
    file.seek(tail_start)
    tail = read_fully(file, file_size - tail_start)
    place = tail.rfind(b"PK\5\6")
    while place >= 0:
        if place + _END.size <= len(tail):
            fields = _END.unpack_from(tail, place)
            if place + _END.size + fields[-1] <= len(tail):
                return _directory(file, fields, tail_start + place)
        place = tail.rfind(b"PK\5\6", 0, place)
    raise ArchiveDamagedError(_NOT_A_ZIP)


def _directory(file: BinaryIO, fields: tuple[int, ...], end: int) -> _Directory:
    _, disk, directory_disk, _, count, size, offset, _ = fields
    large = _end_64(file, end)
    if large is not None:
        end, disk, directory_disk, count, size, offset = large
    if disk or directory_disk:
        raise ArchiveDamagedError("The archive is one part of several.")
    start = end - size
    if start < offset:
        raise ArchiveDamagedError(_DIRECTORY_DAMAGED)
    return _Directory(start, size, count, start - offset)


def _end_64(file: BinaryIO, end: int) -> tuple[int, int, int, int, int, int] | None:
    """What the record of a large archive tells, and where that is; None if there is none."""
    if end < _LOCATOR_64.size + _END_64.size:
        return None
    file.seek(end - _LOCATOR_64.size)
    signature, _, told, disks = _LOCATOR_64.unpack(read_fully(file, _LOCATOR_64.size).ljust(_LOCATOR_64.size))
    if signature != b"PK\6\7":
        return None
    if disks > 1:
        raise ArchiveDamagedError("The archive is one part of several.")
    # It is just in front, unless it is longer than usual; and where it is told to be, unless something is before
    # the archive in the file.
    for place in (end - _LOCATOR_64.size - _END_64.size, told):
        if place + _END_64.size > end:
            continue
        file.seek(place)
        record = read_fully(file, _END_64.size).ljust(_END_64.size)
        if record.startswith(b"PK\6\6"):
            _, _, _, _, disk, directory_disk, _, count, size, offset = _END_64.unpack(record)
            return place, disk, directory_disk, count, size, offset
    raise ArchiveDamagedError(_DIRECTORY_DAMAGED)
