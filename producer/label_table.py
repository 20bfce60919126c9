"""Reads the CSV file that names scans by their paths: their labels, and columns that may name their groups.

What spreadsheets and other programs write is read: commas, semicolons, tabs or bars between the fields, any end of
line, quotes, Unicode with and without a byte-order mark, code page 1252, rows without a value. What cannot be read
is named with its line.
"""

import codecs
import csv
import errno
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from ..models.errors import UsageError
from ..models.sources.beneath import open_regular

# As they are without capitals, spaces and signs; the first that a file has counts.
_PATH_NAMES = (
    *("path", "filepath", "file", "filename", "fullpath", "relativepath", "relpath", "scan", "scanpath"),
    *("image", "imagepath", "imagefile", "imagefilename", "imagename", "img", "imgpath", "imgfile", "imgname"),
)
_LABEL_NAMES = (
    *("label", "labels", "class", "classname", "classlabel", "category", "target", "diagnosis"),
    *("truth", "groundtruth", "status"),
)
_DELIMITERS = ",;\t|"

_MOST_BYTES = 256 * 2**20
"""A million scans with paths of 200 letters."""
_MOST_LINE = 2**20
_PART_BYTES = 2**20

_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # as many bytes as `_open` looks at
_MARKS = (  # that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MOST_SHOWN = 80


class Row(NamedTuple):
    """A row that names a scan."""

    line: int
    """The number of its last line, from 1."""
    path: str
    label: str
    fields: Sequence[str]
    """All of the row, in the order of `LabelTable.columns`; there may be fewer."""


class LabelTable:
    """A CSV file with columns for the path and the label."""

    def __init__(self, file: Path, open_file: Callable[[Path], BinaryIO] = open_regular) -> None:
        """Read the first line of a file, which `open_file` opens.

        Raises:
            UsageError: the file cannot be read, is too large, or does not name the columns.
        """
        self._file = file
        try:
            self._stream = _open(file, open_file)
        except OSError as error:
            raise UsageError(f"{file} cannot be read ({error.strerror})") from None
        self._text = _lines_of(self._stream)
        try:
            self._delimiter, self._lines, header = _find_header(self._text)
        except (UnicodeError, csv.Error) as error:
            raise UsageError(f"{file}, line 1: not a CSV file ({error})") from None
        self.columns = [name.strip() for name in header]
        """The names of the columns."""
        path, label = (_find(self.columns, names) for names in (_PATH_NAMES, _LABEL_NAMES))
        if path is None or label is None:
            shown = ",".join(self.columns)
            shown = shown if len(shown) <= _MOST_SHOWN else shown[:_MOST_SHOWN] + "…"
            raise UsageError(f"{file}: its first line must name the columns path,label; it is {shown!r}")
        self._path = path
        self._label = label

    def column(self, name: str) -> int | None:
        """The place of a column in `Row.fields`, also where capitals and signs differ; None where there is none."""
        if name in self.columns:
            return self.columns.index(name)
        return _find(self.columns, [_plain(name)])

    def rows(self) -> Iterator[Row]:
        """Yield the rows, once; those without any value are passed over.

        Raises:
            UsageError: a row cannot be read.
        """
        reader = csv.reader(self._text, delimiter=self._delimiter, skipinitialspace=True, strict=True)
        try:
            for fields in reader:
                line = self._lines + reader.line_num
                path, label = _field(fields, self._path), _field(fields, self._label)
                if path:
                    yield Row(line, path, label, fields)
                elif label:
                    raise UsageError(f"{self._file}, line {line}: a label, {label!r}, without a path")
        except OSError as error:
            raise UsageError(f"{self._file} cannot be read ({error.strerror})") from None
        except (UnicodeError, csv.Error) as error:
            line = self._lines + reader.line_num
            raise UsageError(f"{self._file}, line {line}: not a CSV file ({error})") from None


class ScanPaths:
    """Paths as people write them → keys that are equal for the same scan."""

    def __init__(self, root: str) -> None:
        """Take the folder, or the URL, that the scans' paths are relative to."""
        self._url = canonical(f"{root}/") if "://" in root else None
        self._root = canonical(os.path.normpath(root))
        folders = dict.fromkeys((self._root, canonical(os.path.realpath(root))))
        self._before = [folder.rstrip("/") + "/" for folder in folders]

    def key(self, path: str) -> str:
        """The key of a path that is absolute, or relative to the root; one outside of it stays as it is."""
        path = canonical(path)
        if self._url is not None:
            return os.path.normpath(path.removeprefix(self._url))
        absolute = os.path.normpath(path if path.startswith("/") else f"{self._root}/{path}")
        for before in self._before:
            if absolute.startswith(before):
                return absolute[len(before) :]
        return path


def canonical(path: str) -> str:
    """A scan's path in the form of keys: with `/`, and letters composed (NFC), which macOS takes apart."""
    if "\\" in path:
        path = path.replace("\\", "/")
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _open(file: Path, open_file: Callable[[Path], BinaryIO]) -> TextIO:
    """Raises OSError, UsageError."""
    stream = open_file(file)
    try:
        if os.fstat(stream.fileno()).st_size > _MOST_BYTES:
            raise OSError(errno.EFBIG, f"larger than {_MOST_BYTES} bytes")
        if stream.read(4) in _WORKBOOKS:
            raise UsageError(f"{file} is no CSV file but a workbook or an archive: save its sheet as CSV")
        encoding = _encoding(stream)
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return io.TextIOWrapper(stream, encoding, newline="")


def _lines_of(stream: TextIO) -> Iterator[str]:
    """The lines, with their ends. Raises csv.Error at one that is too long."""
    with stream:
        while line := stream.readline(_MOST_LINE + 1):
            if len(line) > _MOST_LINE:
                raise csv.Error(f"a line of more than {_MOST_LINE} letters")
            yield line


def _encoding(stream: BinaryIO) -> str:
    """Raises OSError."""
    stream.seek(0)
    data = stream.read(4)
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    if 0 in data[:2] and len(data) > 1:  # the first letter is of ASCII
        return "utf-16-le" if data[1] == 0 else "utf-16-be"
    for encoding in ("utf-8", "cp1252"):
        stream.seek(0)
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            while part := stream.read(_PART_BYTES):
                decoder.decode(part)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"  # has a letter for each byte


def _find_header(text: Iterator[str]) -> tuple[str, int, list[str]]:
    """The delimiter, the number of lines up to the one that names the columns, and their names."""
    lines = 0
    delimiters = _DELIMITERS
    for line in text:
        lines += 1
        if match := re.fullmatch(r'"?sep=(.)"?\s*', line, re.IGNORECASE):  # of Excel
            delimiters = match[1]
        elif line.strip(f' \r\n"{_DELIMITERS}'):
            headers = {
                delimiter: next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
                for delimiter in delimiters
            }
            for delimiter, header in headers.items():
                if None not in (_find(header, _PATH_NAMES), _find(header, _LABEL_NAMES)):
                    return delimiter, lines, header
            return delimiters[0], lines, max(headers.values(), key=len)
    return delimiters[0], lines, []


def _find(columns: Sequence[str], names: Sequence[str]) -> int | None:
    plain = [_plain(column) for column in columns]
    return next((plain.index(name) for name in names if name in plain), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _field(fields: Sequence[str], place: int) -> str:
    return fields[place].strip() if place < len(fields) else ""
