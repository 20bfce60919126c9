"""Tars, packed as a whole or not: members lie one after the other, each behind a header, and there is no directory.

The headers are walked here and not by `tarfile`, which reads as much as a header asks for. Their fields are read by
its `TarInfo.frombuf`. Formats: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar 1.35,
"Basic Tar Format" and "Storing Sparse Files".
"""

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from .members import ArchiveDamagedError, Limits, Member, Tally, WalkedArchive, checked_name
from .unpacking import CUT_SHORT, Source, Stretch, read_fully, unpacked_file

_BLOCK = tarfile.BLOCKSIZE
_MOST_LONG_NAME_BYTES = 64 * 1024
_MOST_PAX_BYTES = 1024**2
_MOST_DIGITS = 20
_MOST_TAIL_BYTES = 1024**2
_PIECE = 1024**2

KEEP_BYTES = 16 * 1024**2
"""Of a packed tar, what was unpacked last and is kept: threads do not ask quite in order."""

_EXTENSIONS = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_WITHOUT_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
_REASONS = {
    tarfile.LNKTYPE: "a hard link, not a regular file",
    tarfile.SYMTYPE: "a symbolic link, not a regular file",
    tarfile.CHRTYPE: "a device, not a regular file",
    tarfile.BLKTYPE: "a device, not a regular file",
    tarfile.FIFOTYPE: "a pipe, not a regular file",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}

_HEADER_DAMAGED = "The archive is damaged: a header cannot be read."


class _Extension:
    """What headers in front of a member's own tell about it."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.size: int | None = None
        self.is_sparse = False

    def take(self, kind: bytes, content: bytes) -> None:
        if kind == tarfile.GNUTYPE_LONGNAME:
            self.name = _text(content.partition(b"\0")[0])
        elif kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            for key, value in _pax_records(content):
                self._take_record(key, value)

    def _take_record(self, key: bytes, value: bytes) -> None:
        if key == b"path" and not self.is_sparse:
            self.name = _text(value)
        elif key == b"size":
            self.size = _number(value)
        elif key.startswith(b"GNU.sparse."):
            self.is_sparse = True
            if key == b"GNU.sparse.name":
                self.name = _text(value)


class _Entry(NamedTuple):
    """A member's header."""

    raw_name: str
    kind: bytes
    is_sparse: bool
    start: int
    """Of its content in the unpacked archive, in bytes."""
    size: int


class TarArchive(WalkedArchive):
    """A tar. Threads take turns to read it."""

    _stops_early = True

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        """Take a tar, of which the first bytes tell how it is packed.

        Args:
            file: it stays the caller's to close.
            limits: what is too much.

        Raises:
            OSError: the file cannot be read.
        """
        super().__init__(limits, "QQ")  # the content's place, bytes
        unpacked = unpacked_file(file, limits.ratio, KEEP_BYTES)
        self._is_packed = unpacked is not None
        self._content: Source = unpacked or file
        self._end = None if unpacked else file.seek(0, os.SEEK_END)

    def _walk(self) -> Iterator[Member]:
        tally = Tally(self._limits)
        for entry in self._entries(tally):
            name, reason = checked_name(entry.raw_name)
            if not name or entry.raw_name.endswith("/") or entry.kind == tarfile.DIRTYPE:
                continue
            tally.member(0)
            if reason is None:
                reason = self._reason(entry)
                with self._lock:
                    if not self._index.add(name, reason, entry.start, entry.size):
                        reason = "an earlier file of the archive has the same name"
            yield Member(name, entry.size, reason)

    def _reason(self, entry: _Entry) -> str | None:
        if entry.is_sparse:
            return _REASONS[tarfile.GNUTYPE_SPARSE]
        if entry.kind not in _REGULAR:
            return _REASONS.get(entry.kind, "of an unknown kind, not a regular file")
        return self._too_large if entry.size > self._limits.member_bytes else None

    def _entries(self, tally: Tally) -> Iterator[_Entry]:
        extension = _Extension()
        position = 0
        while True:
            block = self._bytes(position, _BLOCK)
            position += _BLOCK
            if not block.strip(b"\0"):
                self._check_tail(position)
                return
            header = _header(block, position == _BLOCK)
            if header.type in _EXTENSIONS:
                tally.header(header.size)
                extension.take(header.type, self._extension(header, position))
                position += _padded(header.size)
                continue
            if header.type == tarfile.GNUTYPE_SPARSE:
                position = self._behind_map(block, position, tally)
            entry = _entry(header, extension, position)
            tally.header(entry.size)  # also of what is no member: it takes as long to pass over
            position += _padded(entry.size)
            self._check_end(entry.start + entry.size)
            yield entry
            extension = _Extension()

    def _extension(self, header: tarfile.TarInfo, position: int) -> bytes:
        """The content of a header about another one. Most are short: what claims more is not read."""
        most = _MOST_LONG_NAME_BYTES if header.type in tarfile.GNU_TYPES else _MOST_PAX_BYTES
        if header.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            return b""
        if header.size > most:
            raise ArchiveDamagedError(_HEADER_DAMAGED)
        return self._bytes(position, header.size)

    def _behind_map(self, block: bytes, position: int, tally: Tally) -> int:
        """Where the content of a sparse file begins: the map of its holes may go on in further blocks."""
        more = block[482]
        while more:
            tally.header(_BLOCK)
            more = self._bytes(position, _BLOCK)[504]
            position += _BLOCK
        return position

    def _check_end(self, end: int) -> None:
        if self._end is not None and end > self._end:
            raise ArchiveDamagedError(CUT_SHORT)

    def _check_tail(self, position: int) -> None:
        """Read a packed archive to its end, where its checksum is, unless much follows the end mark."""
        if self._is_packed:
            with self._lock:
                self._content.seek(position)
                read_fully(self._content, _MOST_TAIL_BYTES)

    def _bytes(self, position: int, size: int) -> bytes:
        with self._lock:
            self._content.seek(position)
            data = read_fully(self._content, size)
        if len(data) < size:
            raise ArchiveDamagedError(CUT_SHORT)
        return data

    def _size(self, number: int) -> int:
        return self._index.columns[1][number]

    def _read(self, number: int, name: str) -> bytes:
        start, size = self._index.row(number)
        # The whole of it at once: of a packed archive, two threads in turns would unpack it from the beginning for
        # each piece.
        with self._lock:
            self._content.seek(start)
            if not self._is_packed:
                return self._bytes(start, size)
            content = io.BytesIO()  # it gives its bytes away without a copy
            while content.tell() < size:
                content.write(self._bytes(start + content.tell(), min(_PIECE, size - content.tell())))
            return content.getvalue()

    def _open(self, number: int, name: str) -> io.RawIOBase:
        return Stretch(self._content, self._lock, *self._index.row(number))


def _header(block: bytes, is_first: bool) -> tarfile.TarInfo:
    header = None
    with contextlib.suppress(tarfile.TarError, ValueError):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    if header is None or header.size < 0:
        raise ArchiveDamagedError("The archive is damaged, or is not a tar file." if is_first else _HEADER_DAMAGED)
    return header


def _entry(header: tarfile.TarInfo, extension: _Extension, position: int) -> _Entry:
    size = header.size if extension.size is None else extension.size
    if header.type in _WITHOUT_CONTENT:
        size = 0
    is_sparse = extension.is_sparse or header.type == tarfile.GNUTYPE_SPARSE
    name = header.name if extension.name is None else extension.name
    # As some tools of Windows have it; on Unix a name may hold a backslash, but a scan's hardly does.
    return _Entry(name.replace("\\", "/"), header.type, is_sparse, position, size)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _number(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > _MOST_DIGITS:
        raise ArchiveDamagedError(_HEADER_DAMAGED)
    return int(raw)


def _pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Records of the form `20 key=value\\n`, whose number is the length of them whole."""
    position = 0
    while position < len(content) and content[position]:
        space = content.find(b" ", position, position + _MOST_DIGITS + 1)
        end = position + _number(content[position : max(position, space)])
        if end <= space or content[end - 1 : end] != b"\n":
            raise ArchiveDamagedError(_HEADER_DAMAGED)
        key, _, value = content[space + 1 : end - 1].partition(b"=")
        yield key, value
        position = end
