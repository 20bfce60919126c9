"""Files that a person or a submission names: regular ones alone, no larger than they can be."""

import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scanomaly.models.encoders import file_digest
from scanomaly.models.errors import UsageError
from scanomaly.producer import label_table
from scanomaly.producer.label_table import LabelTable

MEGABYTE = 2**20


@contextmanager
def taking_at_most(most: int) -> Iterator[None]:
    """Fails when more memory is taken at one time, in bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


NO_FILES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": _socket,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/ptmx"),
    "link to a pipe": lambda path: (os.mkfifo(f"{path}.pipe"), path.symlink_to(f"{path}.pipe")),
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("read", [LabelTable, file_digest])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    read: Callable[[Path], object], kind: str, tmp_path: Path
) -> None:
    NO_FILES[kind](tmp_path / "named")
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "named")


def test_a_labels_file_that_claims_much_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("path,label\n")
    os.truncate(file, 800 * MEGABYTE)
    with taking_at_most(8 * MEGABYTE), pytest.raises(UsageError, match="larger than 268435456 bytes"):
        LabelTable(file)


@pytest.mark.parametrize("header", [b"path,label\n", b"", "path,label\n".encode("utf-16")])
def test_a_line_without_end_is_not_kept(header: bytes, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(header)
    os.truncate(file, 200 * MEGABYTE)
    with taking_at_most(40 * MEGABYTE), pytest.raises(UsageError, match=r"line \d: not a CSV file"):
        list(LabelTable(file).rows())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_letter_that_two_parts_share_is_read(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_table, "_PART_BYTES", 3)
    file = tmp_path / "labels.csv"
    file.write_text("path,label\n" + "".join(f"{'ü' * n}.png,normal\n" for n in range(1, 9)), encoding)
    assert [row.path for row in LabelTable(file).rows()] == [f"{'ü' * n}.png" for n in range(1, 9)]
