"""Puts a report's folder in place whole or not at all, and writes the CSV files in it."""

import csv
import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from pyarrow import parquet

from ...models.errors import ReportError
from ...models.reports import REPORT_FILES, check_replaceable

_PAGE = 2000
_ROW_GROUP = 5000
"""Rows of a CSV file that are written at once."""

_Row: TypeAlias = Sequence[str | int | float | None]


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write a report into, that becomes `folder` when the block ends without an error.

    It is a sibling of `folder`, so that one rename puts it in place. A report that was there is moved aside and
    removed after; it comes back when the rename fails. Parents are made. Whatever happens, what was at
    `folder` before is there or its successor is, and no temporary folder is left; what a killed process left is
    put in order by the next one that writes this report.

    Raises:
        ReportError: `folder` holds something else than a report, or cannot be written. One line: what, and what
            to do about it. Errors of the block that are no OSError pass through.
    """
    try:
        target = folder.resolve()  # a link to a folder stays a link
        _check_target(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        mine = f".scanomaly-report-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}-"
        left = sorted(target.parent.glob(f"{mine}*"))
        staging = target.parent / f"{mine}{uuid.uuid4().hex}"
        staging.mkdir()
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield staging
        _check_target(target)  # again: writing may have taken minutes
        _put_in_place(staging, target)
        for old in left:
            with suppress(FileNotFoundError):  # another writer of this report was faster
                _remove_old(old, target)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_target(target: Path) -> None:
    if os.path.ismount(target):
        raise ReportError(
            f"{target} is a mount point, which cannot be replaced: name a folder inside it with --out"
        )
    check_replaceable(target)


def _put_in_place(staging: Path, target: Path) -> None:
    aside = staging.with_name(f"{staging.name}-old")
    had_one = target.exists()
    if had_one:
        target.rename(aside)
    try:
        staging.rename(target)
    except OSError:
        if had_one:
            aside.rename(target)
        raise
    if had_one:
        _remove_old(aside, target)


def _remove_old(old: Path, new: Path) -> None:
    for entry in old.iterdir():
        if entry.name not in REPORT_FILES:
            entry.rename(new / entry.name)
    shutil.rmtree(old)


def _unwritable(folder: Path, error: OSError) -> ReportError:
    reason = error.strerror or str(error)
    return ReportError(
        f"the report folder {folder} cannot be written ({reason}): free or unlock it, or name another with --out"
    )


def write_csv(path: Path, header: Sequence[str], rows: Iterable[_Row]) -> None:
    """Write a CSV file: UTF-8, one header line, `\\n` line ends, fields quoted where they must be.

    Floats are written with `repr`, so that they read back as the same float64; None as nothing. A byte of a file
    name that is not UTF-8 is written as `\\udcXX`.

    Raises:
        OSError: the file cannot be written.
    """
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(_lines([header]))
        iterator = iter(rows)
        while page := list(islice(iterator, _PAGE)):
            lines = _lines(page)
            # With `\n` line ends the csv module leaves a lone `\r` bare, which readers take for a line end.
            if "\r" in lines:
                lines = "".join(_lines([row], quoted="\r" in _lines([row])) for row in page)
            file.write(lines)


class ParquetCopy:
    """A Parquet file with the rows that pass by."""

    def __init__(self, path: Path, columns: Mapping[str, pa.DataType]) -> None:
        """Begin a file with these columns, by name."""
        self._schema = pa.schema(list(columns.items()))
        self._path = path

    def passing(self, rows: Iterable[_Row]) -> Iterator[_Row]:
        """The same rows. The file is whole when they have come to their end.

        Raises:
            OSError: the file cannot be written.
        """
        iterator = iter(rows)
        with parquet.ParquetWriter(self._path, self._schema) as writer:
            while page := list(islice(iterator, _ROW_GROUP)):
                columns = zip(zip(*page, strict=True), self._schema.types, strict=True)
                arrays = [
                    pa.array(_text(values) if kind == pa.string() else values, kind) for values, kind in columns
                ]
                writer.write_table(pa.table(arrays, schema=self._schema))
                yield from page


def _text(values: Iterable[Any]) -> list[str | None]:
    """Bytes of names that are not UTF-8 become `\\udcXX`, as in the CSV files."""
    return [None if value is None else str(value).encode("utf-8", "backslashreplace").decode() for value in values]


def _lines(rows: Sequence[_Row], quoted: bool = False) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL).writerows(rows)
    return text.getvalue()
