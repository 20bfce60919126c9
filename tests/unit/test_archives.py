"""Archives read in place: what zipfile and tarfile write is read, and what is hostile or damaged does no harm."""

import bz2
import errno
import gzip
import io
import lzma
import random
import struct
import tarfile
import threading
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import fsspec
import pytest

from scanomaly.models.sources.archives import (
    Archive,
    ArchiveDamagedError,
    ArchiveError,
    Limits,
    Member,
    MemberMissingError,
    MemberTooLargeError,
    OpenArchives,
    archive_ending,
    open_archive,
)

from ..waiting import HANGS

MOST = 64 * 1024**2
LIMITS = Limits(member_bytes=MOST)
TARS = ("a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz")
ALL = ("a.zip", *TARS)
STAMP = (1, 1)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def shard(count: int = 40) -> dict[str, bytes]:
    """What a WebDataset shard holds: pictures, classes and descriptions."""
    files: dict[str, bytes] = {}
    for number in range(count):
        files[f"{number:03}.jpg"] = noise(20_000 + number, number)
        files[f"{number:03}.cls"] = b"%d" % (number % 2)
        files[f"{number:03}.json"] = b'{"age": 50, "side": "left"}' * 100
    return files


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    return tar_of([(name, tarfile.REGTYPE, data) for name, data in files.items()], mode, form)


def tar_of(members: list[tuple[str, bytes, bytes]], mode: str = "w", form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "target"
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def made(name: str, files: dict[str, bytes]) -> bytes:
    if name.endswith(".zip"):
        return zipped(files)
    packing = name.rpartition(".")[2]
    return tarred(files, "w" if packing == "tar" else f"w:{packing}")


def opened(data: bytes, name: str = "a.zip", limits: Limits = LIMITS) -> Archive:
    return open_archive(io.BytesIO(data), name, limits)


def listed(data: bytes, name: str = "a.zip", limits: Limits = LIMITS) -> list[Member]:
    return list(opened(data, name, limits).members())


def reasons(data: bytes, name: str = "a.zip", limits: Limits = LIMITS) -> dict[str, str | None]:
    return {member.name: member.reason for member in listed(data, name, limits)}


def contents(archive: Archive) -> dict[str, bytes]:
    return {member.name: archive.read(member.name) for member in archive.members() if member.reason is None}


def damage(action: Callable[[], object], kind: type[ArchiveError] = ArchiveDamagedError) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert type(caught.value) is kind
    detail = caught.value.detail
    assert detail.endswith(".")
    assert "\n" not in detail
    assert "secret" not in detail, "a name is quoted"
    return detail


def patched(data: bytes, *changes: tuple[int, bytes]) -> bytes:
    """The data with other bytes at some places."""
    changed = bytearray(data)
    for place, new in changes:
        changed[place : place + len(new)] = new
    return bytes(changed)


def entry_at(data: bytes, number: int = 0) -> int:
    """Where a zip's directory tells of its member."""
    place = -1
    for _ in range(number + 1):
        place = data.index(b"PK\1\2", place + 1)
    return place


class CountingFile(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


class SlowFile(io.BytesIO):
    """Lets other threads in between a step to a place and the reading there."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        position = super().seek(offset, whence)
        time.sleep(0)
        return position


class FailingFile(io.BytesIO):
    """A disk that breaks for a while."""

    fails = False
    fails_at = -1

    def read(self, size: int | None = -1, /) -> bytes:
        self.fails_at -= 1
        if self.fails or self.fails_at == 0:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.zip", ".zip"),
        ("b/A.ZIP", ".zip"),
        ("a.tar", ".tar"),
        ("a.nii.tar.gz", ".tar.gz"),
        ("a.TGZ", ".tgz"),
        ("a.tar.bz2", ".tar.bz2"),
        ("a.tar.xz", ".tar.xz"),
        ("a.gz", None),
        ("a.nii.gz", None),
        ("azip", None),
        ("b/.zip", None),
        (".tar.gz", None),
        ("a.zip/b", None),
        ("a.zip\n", None),
        ("", None),
    ],
)
def test_ending(name: str, ending: str | None) -> None:
    assert archive_ending(name) == ending


def test_a_name_that_is_no_archives() -> None:
    with pytest.raises(ValueError, match="ending"):
        opened(b"", "a.gz")


class TestContent:
    @pytest.mark.parametrize("name", ALL)
    def test_a_shard(self, name: str) -> None:
        files = shard()
        archive = opened(made(name, files), name)
        assert contents(archive) == files
        assert [member.name for member in archive.members()] == list(files), "another order, or only once"
        for wanted in reversed(files):
            assert archive.read(wanted) == files[wanted]
            assert archive.has(wanted)
        assert not archive.has("999.jpg")
        assert not archive.has("")
        damage(lambda: archive.read("999.jpg"), MemberMissingError)

    @pytest.mark.parametrize(
        "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    def test_methods_of_zip(self, method: int) -> None:
        files = {"a": noise(300_000), "b": b"text " * 100_000, "empty": b"", "one": b"1"}
        archive = opened(zipped(files, method))
        assert contents(archive) == files
        for name, data in files.items():
            with archive.open(name) as stream:
                assert stream.read(5) == data[:5]
                assert stream.seek(-1, 1) >= -1 if data else True
                stream.seek(0)
                assert stream.read() == data
                assert stream.read(1) == b""

    def test_sizes_around_a_block(self) -> None:
        """zlib may have taken all that is packed, and still hold back the last bytes."""
        for size in range(128 * 1024 - 2, 128 * 1024 + 40):
            assert opened(zipped({"a": bytes(size)})).read("a") == bytes(size)

    @pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names(self, form: int) -> None:
        files = {
            "x" * 99: b"1",
            "y" * 100: b"2",
            "/".join(["folder"] * 40) + "/ü.png": b"3",
            "z" * 3000: b"4",
            "after": b"5",
        }
        assert contents(opened(tarred(files, form=form), "a.tar")) == files

    def test_ustar_prefix(self) -> None:
        files = {"/".join(["folder"] * 20) + "/a.png": b"1"}
        assert contents(opened(tarred(files, form=tarfile.USTAR_FORMAT), "a.tar")) == files

    def test_a_size_of_pax_counts(self) -> None:
        """As for members of more than 8 GiB: the plain field cannot tell their size."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            info = tarfile.TarInfo("a")
            info.size, info.pax_headers = 700, {"size": "700"}
            archive.addfile(info, io.BytesIO(b"a" * 700))
            info = tarfile.TarInfo("b")
            archive.addfile(info)
        data = bytearray(buffer.getvalue())
        header = data.index(b"a\0\0\0")
        data[header + 124 : header + 136] = b"00000000000\0"
        data[header + 148 : header + 156] = b" " * 8
        data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])
        assert [member[:2] for member in listed(bytes(data), "a.tar")] == [("a", 700), ("b", 0)]

    def test_names_are_tidied(self) -> None:
        names = {
            "./a": "a",
            "./b/./c": "b/c",
            "d//e": "d/e",
            "f:g": "f:g",
            "..h": "..h",
            "i/j..": "i/j..",
            ".k": ".k",
        }
        for name, data in (
            ("a.zip", zipped(dict.fromkeys(names, b"1"))),
            ("a.tar", tarred(dict.fromkeys(names, b"1"))),
        ):
            archive = opened(data, name)
            found = reasons(data, name)
            assert found.pop("f:g") == "its name leads out of the archive"
            assert found == dict.fromkeys([tidy for tidy in names.values() if tidy != "f:g"])
            assert archive.read("b/c") == b"1"

    def test_folders_are_not_listed(self) -> None:
        assert listed(zipped({"a/": b"", "a/b/": b"", "./": b""})) == []
        data = tar_of([("a", tarfile.DIRTYPE, b""), ("b/", tarfile.AREGTYPE, b""), (".", tarfile.DIRTYPE, b"")])
        assert listed(data, "a.tar") == []

    @pytest.mark.parametrize("name", ALL)
    def test_empty(self, name: str) -> None:
        archive = opened(made(name, {}), name)
        assert list(archive.members()) == []
        damage(lambda: archive.read("a"), MemberMissingError)

    def test_zip64(self) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            with archive.open("a", "w", force_zip64=True) as member:
                member.write(b"content")
            archive.writestr("b", b"more")
        data = buffer.getvalue()
        assert contents(opened(data)) == {"a": b"content", "b": b"more"}
        # The sizes and the offset in the extra field alone, and the record of large archives at the end.
        entry = entry_at(data, 1)
        place = struct.unpack_from("<L", data, entry + 42)[0]
        extra = struct.pack("<HHQQQ", 1, 24, 4, 4, place)
        large = bytearray(data[: data.index(b"PK\5\6")])
        large[entry + 47 : entry + 47] = extra
        large[entry + 20 : entry + 28] = b"\xff" * 8
        large[entry + 30 : entry + 32] = struct.pack("<H", len(extra))
        large[entry + 42 : entry + 46] = b"\xff" * 4
        start, end = entry_at(data), len(large)
        for record in (
            struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, end - start, start),
            struct.pack("<4sLQL", b"PK\6\7", 0, end, 1),
            struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0),
        ):
            large += record
        with zipfile.ZipFile(io.BytesIO(large)) as reference:
            assert reference.read("b") == b"more"
        assert contents(opened(bytes(large))) == {"a": b"content", "b": b"more"}
        assert contents(opened(b"before" + bytes(large))) == {"a": b"content", "b": b"more"}
        cut = patched(bytes(large), (entry + 49, struct.pack("<H", 8)))
        assert reasons(cut)["b"] == "its entry in the archive's directory is damaged"
        assert reasons(cut)["a"] is None
        damage(lambda: opened(patched(bytes(large), (end, b"PK\6\5"))))

    def test_data_descriptors(self) -> None:
        class Pipe(io.RawIOBase):
            """Makes zipfile write the sizes behind the content."""

            def __init__(self) -> None:
                self.data = b""

            def writable(self) -> bool:
                return True

            def write(self, data: bytes) -> int:  # type: ignore[override]
                self.data += bytes(data)
                return len(data)

        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
            archive.writestr("a", b"a" * 1000)
            archive.writestr("b", b"b" * 1000)
        assert pipe.data[6] & 8
        assert contents(opened(pipe.data)) == {"a": b"a" * 1000, "b": b"b" * 1000}

    def test_something_before_and_behind_a_zip(self) -> None:
        data = zipped({"a": b"1"})
        assert contents(opened(b"#!/bin/sh\n" + data)) == {"a": b"1"}
        commented = data[:-2] + struct.pack("<H", 30) + b"a comment with PK\5\6 in it 012345"[:30]
        assert contents(opened(commented)) == {"a": b"1"}
        assert contents(opened(data + b"\n" * 1000)) == {"a": b"1"}

    def test_names_without_the_flag(self) -> None:
        data = zipped({"ab.png": b"1"})
        places = [data.index(b"ab.png"), data.rindex(b"ab.png")]
        for raw, name in (("ü".encode(), "ü.png"), (b"\x81\x84", "üä.png")):
            changed = patched(data, *((place, raw) for place in places))
            assert contents(opened(changed)) == {name: b"1"}

    def test_packing_is_told_by_the_bytes(self) -> None:
        files = {"a": b"1", "b": b"2"}
        assert contents(opened(tarred(files, "w:gz"), "a.tar")) == files
        assert contents(opened(tarred(files), "a.tgz")) == files

    @pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
    def test_packed_in_several_streams(self, pack: Callable[[bytes], bytes]) -> None:
        files = shard(10)
        data = tarred(files)
        parts = [data[start : start + 100_001] for start in range(0, len(data), 100_001)]
        archive = opened(b"".join(pack(part) + bytes(8) for part in parts) + bytes(1000) + b"signature", "a.tar.gz")
        assert contents(archive) == files

    def test_from_a_file_of_fsspec(self) -> None:
        for name in ALL:
            files = shard(5)
            with fsspec.open(f"memory://archives/{name}", "wb") as file:
                file.write(made(name, files))
            with fsspec.open(f"memory://archives/{name}", "rb") as file:
                assert contents(open_archive(file, name, LIMITS)) == files

    def test_little_is_read_of_a_file(self) -> None:
        files = {f"{number}": noise(1_000_000, number) for number in range(5)}
        for name, most in (("a.zip", 70_000), ("a.tar", 10_000)):
            file = CountingFile(made(name, files))
            archive = open_archive(file, name, LIMITS)
            assert len(list(archive.members())) == 5
            assert file.count < most
            archive.open("3").read(100)
            assert file.count < most + 300_000
            before = file.count
            assert archive.read("2") == files["2"]
            assert file.count < before + 1_100_000

    def test_reserve(self) -> None:
        archive = opened(zipped({"a": b"a" * 1000}))
        claimed: list[int] = []
        assert archive.read("a", claimed.append) == b"a" * 1000
        assert claimed == [1000]

        def refuse(size: int) -> None:
            raise MemoryError(size)

        with pytest.raises(MemoryError):
            archive.read("a", refuse)


class TestIgnored:
    @pytest.mark.parametrize(
        "name",
        [
            "/etc/passwd",
            "../a",
            "a/../../b",
            "a/..",
            "..",
            "C:\\a",
            "c:a",
            "\\a",
            "..\\a",
            "a\\..\\b",
            "\\\\host\\a",
        ],
    )
    def test_names_that_lead_out(self, name: str) -> None:
        for kind, data in (("a.zip", zipped({name: b"1", "b": b"2"})), ("a.tar", tarred({name: b"1", "b": b"2"}))):
            shown = name.replace("\\", "/")
            assert reasons(data, kind) == {shown: "its name leads out of the archive", "b": None}
            for other in (shown, shown.replace("..", "").strip("/"), shown.rpartition(":")[2]):
                assert not opened(data, kind).has(other)
            damage(lambda data=data, kind=kind: opened(data, kind).read(name), MemberMissingError)
            assert not opened(data, kind).has(name)

    @pytest.mark.parametrize("kind", ALL)
    def test_backslashes_between_the_parts_of_a_path(self, kind: str) -> None:
        files = {
            "no\\1.png": b"1",
            "no\\deep\\ü.png": b"2",
            "yes/a\\3.png": b"3",
            ".\\x\\.\\4.png": b"4",
            "no\\": b"",
        }
        data = made(kind, files)
        expected = {"no/1.png": b"1", "no/deep/ü.png": b"2", "yes/a/3.png": b"3", "x/4.png": b"4"}
        assert contents(opened(data, kind)) == expected
        assert reasons(data, kind) == dict.fromkeys(expected)

    def test_a_letter_whose_second_byte_is_that_of_a_backslash(self) -> None:
        """In code page 932: of two, the first is a letter's, the second lies between a folder and a file."""
        data = zipped({"ab.png": b"1", "a/cd.png": b"2"})
        for name, other in ((b"ab.png", b"\x95\\.png"), (b"a/cd.png", b"a\\\x95\\.png")):
            data = data.replace(name, other)
        assert contents(opened(data)) == {"ò\\.png": b"1", "a/ò\\.png": b"2"}

    def test_names_that_are_none(self) -> None:
        data = zipped({"ab.png": b"1", "b": b"2"})
        places = [data.index(b"ab.png"), data.rindex(b"ab.png")]
        nul = patched(data, *((place, b"a\0") for place in places))
        assert reasons(nul) == {"a\\x00.png": "its name holds a NUL", "b": None}
        flag = (entry_at(data) + 8, struct.pack("<H", 0x800))
        broken = patched(data, flag, *((place, b"\xff\xfe") for place in places))
        assert reasons(broken) == {"\\udcff\\udcfe.png": "its name is not valid UTF-8", "b": None}
        tar = tarred({"a\udcff": b"1", "b": b"2"}, form=tarfile.GNU_FORMAT)
        assert reasons(tar, "a.tar") == {"a\\udcff": "its name is not valid UTF-8", "b": None}
        for kind in ("a.zip", "a.tar"):
            first, second = listed(made(kind, {"n" * 5000: b"1", "b": b"2"}), kind)
            assert first.reason == "its name is too long"
            assert len(first.name) < 300
            assert second.reason is None

    def test_links_and_devices(self) -> None:
        kinds = {
            "symlink": tarfile.SYMTYPE,
            "hard": tarfile.LNKTYPE,
            "character": tarfile.CHRTYPE,
            "block": tarfile.BLKTYPE,
            "fifo": tarfile.FIFOTYPE,
            "unknown": b"Z",
        }
        members = [(name, kind, b"") for name, kind in kinds.items()]
        data = tar_of([("a", tarfile.REGTYPE, b"1"), *members, ("b", tarfile.CONTTYPE, b"2")])
        found = reasons(data, "a.tar")
        assert found.pop("a") is None
        assert found.pop("b") is None
        assert found.keys() == kinds.keys()
        assert all(reason and reason.endswith("not a regular file") for reason in found.values())
        archive = opened(data, "a.tar")
        assert archive.has("hard")
        assert "hard link" in damage(lambda: archive.read("hard"))
        assert archive.read("b") == b"2"

    def test_a_link_with_a_size(self) -> None:
        """That of its target, as some programs write it: no content follows."""
        info = tarfile.TarInfo("link")
        info.type, info.size = tarfile.LNKTYPE, 5000
        data = info.tobuf(tarfile.GNU_FORMAT) + tarred({"a": b"1"})
        assert [member.name for member in listed(data, "a.tar")] == ["link", "a"]

    def test_links_in_a_zip(self) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, mode in (("link", 0o120777), ("folder", 0o040755), ("a", 0o100644)):
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, b"target")
        assert reasons(buffer.getvalue()) == {"link": "a link or a device, not a regular file", "a": None}

    def test_sparse(self) -> None:
        old = bytearray(tar_of([("s", tarfile.GNUTYPE_SPARSE, b"x" * 600)]))[:1536]
        old[386:410] = b"00000000000\0" + b"00000001130\0"
        old[482] = 1
        old[483:495] = b"00010000000\0"
        old[148:156] = b" " * 8
        old[148:156] = b"%06o\0 " % sum(old[:512])
        map_goes_on = bytes(504) + b"\1" + bytes(7) + bytes(512)
        data = bytes(old[:512]) + map_goes_on + bytes(old[512:]) + tarred({"b": b"2"})
        assert reasons(data, "a.tar") == {"s": "a sparse file", "b": None}
        assert opened(data, "a.tar").read("b") == b"2"
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            info = tarfile.TarInfo("GNUSparseFile.0/s")
            info.size = 1024
            info.pax_headers = {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": "s",
                "GNU.sparse.realsize": "1000000000000",
            }
            archive.addfile(info, io.BytesIO(b"1\n0\n512\n".ljust(1024, b"\0")))
            archive.addfile(tarfile.TarInfo("b"))
        assert listed(buffer.getvalue(), "a.tar")[0].reason == "a sparse file"
        assert listed(buffer.getvalue(), "a.tar")[1] == ("b", 0, None)
        damage(lambda: opened(buffer.getvalue(), "a.tar").read("s"))

    def test_encrypted(self) -> None:
        data = zipped({"a": b"1", "b": b"2"})
        for flag in (1, 0x41):
            changed = patched(data, (entry_at(data) + 8, struct.pack("<H", flag)))
            assert reasons(changed) == {"a": "it is encrypted", "b": None}
            assert "encrypted" in damage(lambda changed=changed: opened(changed).read("a"))
            assert opened(changed).read("b") == b"2"

    def test_unsupported_methods(self) -> None:
        data = zipped({"a": b"1", "b": b"2"})
        for method in (1, 6, 9, 93, 98, 0x108):
            changed = patched(data, (entry_at(data) + 10, struct.pack("<H", method)))
            assert reasons(changed) == {"a": "it is packed by a method that is not supported", "b": None}
            damage(lambda changed=changed: opened(changed).read("a"))

    def test_the_first_of_a_name_counts(self) -> None:
        reason = "an earlier file of the archive has the same name"
        data = zipped({"a": b"first", "./a": b"second", "b": b"third"})
        again = entry_at(data, 2)
        third = patched(data, (struct.unpack_from("<L", data, again + 42)[0] + 30, b"a"), (again + 46, b"a"))
        members = [(name, tarfile.REGTYPE, text) for name, text in (("a", b"first"), ("a", b"2"), ("./a", b"3"))]
        for kind, data in (
            ("a.zip", third),
            ("a.tar", tar_of(members)),
            ("a.tgz", tar_of(members, "w:gz")),
        ):
            assert [member.reason for member in listed(data, kind)] == [None, reason, reason]
            archive = opened(data, kind)
            for _ in range(2):
                assert [member.reason for member in archive.members()] == [None, reason, reason]
            assert archive.read("a") == b"first"

    def test_an_entry_that_comes_twice(self) -> None:
        data = zipped({"a": b"1"})
        start, end = entry_at(data), data.index(b"PK\5\6")
        twice = data[:end] + data[start:end] + patched(data[end:], (12, struct.pack("<L", 2 * (end - start))))
        assert [member.reason is None for member in listed(twice)] == [True, False]

    def test_too_large(self) -> None:
        limits = Limits(member_bytes=100)
        for kind in ALL:
            data = made(kind, {"a": b"1" * 101, "b": b"2" * 100})
            archive = opened(data, kind, limits)
            (first, second) = archive.members()
            assert first == ("a", 101, "larger than the limit of 100 bytes (SCANOMALY_MAX_FILE_BYTES)")
            assert second.reason is None
            damage(lambda archive=archive: archive.read("a"), MemberTooLargeError)
            damage(lambda archive=archive: archive.open("a"), MemberTooLargeError)

    @pytest.mark.parametrize("kind", ALL)
    def test_limits_of_the_whole(self, kind: str) -> None:
        data = made(kind, {f"{number}": b"1" * 1000 for number in range(10)})
        for limits in (Limits(MOST, members=9), Limits(MOST, total_bytes=9999)):
            damage(lambda limits=limits: listed(data, kind, limits), ArchiveError)
        assert len(listed(data, kind, Limits(MOST, members=10, total_bytes=10_000))) == 10

    def test_the_count_at_the_end_of_a_zip_may_lie(self) -> None:
        data = zipped({f"{number}": b"1" for number in range(10)})
        damage(lambda: opened(data, "a.zip", Limits(MOST, members=9)), ArchiveError)  # without a look at them
        lying = patched(data, (data.index(b"PK\5\6") + 8, struct.pack("<HH", 1, 1)))
        damage(lambda: listed(lying, "a.zip", Limits(MOST, members=9)), ArchiveError)

    def test_too_many_headers(self) -> None:
        headers = b"".join(tar_of([("x", tarfile.XGLTYPE, b"")])[:512] for _ in range(50))
        damage(lambda: listed(headers + tarred({}), "a.tar", Limits(MOST, members=10)), ArchiveError)
        assert listed(headers + tarred({"a": b""}), "a.tar") == [("a", 0, None)]


class TestDamage:
    @pytest.mark.parametrize("kind", ALL)
    def test_cut_short(self, kind: str) -> None:
        """Wherever an archive ends: half of it does not look like the whole, and what is told is right."""
        files = shard(23)  # so that cuts fall into members
        data = made(kind, files)
        whole = len(data) if kind != "a.tar" else len(data.rstrip(b"\0"))
        for twentieth in range(20):
            cut = data[: whole * twentieth // 20]
            damage(lambda cut=cut: listed(cut, kind))
            if kind == "a.zip":
                continue
            listing = opened(cut, kind).members()
            archive = opened(cut, kind)
            got: dict[str, bytes] = {}
            damage(lambda archive=archive, got=got: read_on(archive, got))
            assert got.items() <= files.items()
            if kind == "a.tar":
                assert [next(listing).name for _ in got] == list(got)
                damage(lambda listing=listing: next(listing))
            for name in got:
                assert archive.read(name) == files[name]
            if kind in ("a.tar", "a.tar.gz") and twentieth > 10:
                assert len(got) > 20
                fresh = opened(cut, kind)
                assert not fresh.has("none")
                assert fresh.has("000.jpg")
                damage(lambda fresh=fresh: fresh.read("none"))

    def test_no_end_mark(self) -> None:
        data = tarred({"a": b"1"})
        damage(lambda: listed(data[:1024], "a.tar"))
        assert len(listed(data[:1536], "a.tar")) == 1
        damage(lambda: listed(gzip.compress(data[:1024]), "a.tar.gz"))

    @pytest.mark.parametrize("kind", ALL)
    def test_not_an_archive(self, kind: str) -> None:
        for data in (b"", b"a", b"\x89PNG\r\n\x1a\n" + noise(5000), b"PK\5\6", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0"):
            damage(lambda data=data: listed(data, kind))
            damage(lambda data=data: opened(data, kind).has("a"))

    @pytest.mark.parametrize(
        "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    def test_changed_content(self, method: int) -> None:
        data = zipped({"secret": noise(5000), "b": b"2"}, method)
        changed = patched(data, (2500, b"changed"))
        archive = opened(changed)
        damage(lambda: archive.read("secret"))
        assert archive.read("b") == b"2"

    def test_checksum(self) -> None:
        data = zipped({"secret": b"content"})
        damage(lambda: opened(patched(data, (entry_at(data) + 16, b"abcd"))).read("secret"))

    @pytest.mark.parametrize("kind", ["a.tar.gz", "a.tar.bz2", "a.tar.xz"])
    def test_checksum_of_a_packed_tar(self, kind: str) -> None:
        data = made(kind, {"a": noise(1000)})
        for changed in (data[:-3], patched(data, (len(data) - 6, b"abc"))):
            damage(lambda changed=changed: listed(changed, kind))

    @pytest.mark.parametrize(
        "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    @pytest.mark.parametrize("stated", [1, 4999, 5001, 9_000, MOST])
    def test_a_size_that_lies(self, method: int, stated: int) -> None:
        data = zipped({"secret": noise(5000), "b": b"2"}, method)
        changed = patched(data, (entry_at(data) + 24, struct.pack("<L", stated)))
        archive = opened(changed)
        damage(lambda: archive.read("secret"))
        assert archive.read("b") == b"2"
        with pytest.raises(ArchiveDamagedError):
            raise_after(archive, "secret", stated)

    def test_a_packed_size_that_lies(self) -> None:
        data = zipped({"secret": noise(5000), "b": b"2"})
        for stated in (0, 100, 4000):
            changed = patched(data, (entry_at(data) + 20, struct.pack("<L", stated)))
            damage(lambda changed=changed: opened(changed).read("secret"))
        for stated in (5500, 0xFFFFFFF0):
            changed = patched(data, (entry_at(data) + 20, struct.pack("<L", stated)))
            assert reasons(changed) == {"secret": "its entry in the archive's directory is damaged", "b": None}
            damage(lambda changed=changed: opened(changed).read("secret"))

    def test_the_headers_of_a_member_differ(self) -> None:
        data = zipped({"secret": b"1"})
        damage(lambda: opened(patched(data, (data.index(b"secret"), b"public"))).read("secret"))
        damage(lambda: opened(patched(data, (0, b"PK\3\5"))).read("secret"))
        damage(lambda: opened(patched(data, (28, b"\5"))).open("secret"))

    def test_a_zip_of_several_parts(self) -> None:
        data = zipped({"a": b"1"})
        damage(lambda: opened(patched(data, (data.index(b"PK\5\6") + 4, b"\1"))))

    def test_a_directory_that_lies(self) -> None:
        data = zipped({"a": b"1", "b": b"2"})
        end = data.index(b"PK\5\6")
        size = struct.unpack_from("<L", data, end + 12)[0]
        for stated in (0, 1, size - 1, size - 40, size + 1, 0xFFFFFFFF):
            changed = patched(data, (end + 12, struct.pack("<L", stated)))
            if stated:
                damage(lambda changed=changed: listed(changed))

    def test_headers_of_a_tar(self) -> None:
        data = tarred({"secret": b"1" * 600, "b": b"2"})
        damage(lambda: listed(patched(data, (1536, b"x")), "a.tar"))
        damage(lambda: listed(patched(data, (148, b"zzzz")), "a.tar"))
        assert "not a tar" in damage(lambda: listed(patched(data, (0, b"x")), "a.tar"))

    def test_pax_records(self) -> None:
        for records in (
            b"5 a=b\n",
            b"0 a=b\n",
            b"99999 a=b\n",
            b"9" * 5000 + b" a=b\n",
            b"-6 a=b\n",
            b"x a=b\n",
            b"8 size=\n",
            b"11 size=-1\n",
            b"6 a=bc",
            b"\xff",
            b"6",
            b"39 size=" + b"9" * 30 + b"\n",
            b"5011 size=" + b"9" * 5000 + b"\n",
        ):
            header = tar_of([("x", tarfile.XHDTYPE, records)])[: 512 + -(-len(records) // 512) * 512]
            data = header + tarred({"a": b""})
            damage(lambda data=data: listed(data, "a.tar"))
        fine = tar_of([("x", tarfile.XHDTYPE, b"10 path=b\n")])[:1024] + tarred({"a": b""})
        assert listed(fine, "a.tar") == [("b", 0, None)]

    def test_errors_of_the_file_pass_through(self) -> None:
        for kind in ALL:
            file = FailingFile(made(kind, shard(20)))
            archive = open_archive(file, kind, LIMITS)
            names = [member.name for member in archive.members()]
            file.fails = True
            if kind in ("a.zip", "a.tar"):  # of a packed one, so little is kept
                with pytest.raises(OSError, match="Input/output error"):
                    archive.read(names[0])
            file.fails = False
            assert archive.read(names[0]) == shard(1)["000.jpg"], "it stays broken"
            fresh = open_archive(file, kind, LIMITS)
            file.fails = True
            with pytest.raises(OSError, match="Input/output error"):
                fresh.has(names[-1])
            file.fails = False
            assert fresh.has(names[-1])

    def test_an_error_within_a_block(self) -> None:
        files = shard(60)
        file = FailingFile(made("a.tar.gz", files))
        archive = open_archive(file, "a.tar.gz", LIMITS)
        file.fails_at = 3
        with pytest.raises(OSError, match="Input/output error"):
            contents(archive)
        assert contents(archive) == files, "it went on at another place"


def read_on(archive: Archive, got: dict[str, bytes]) -> None:
    for member in archive.members():
        got[member.name] = archive.read(member.name)


def raise_after(archive: Archive, name: str, size: int) -> None:
    """A stream gives no more than the stated bytes; what is short of them is an error."""
    with archive.open(name) as stream:
        count = 0
        while part := stream.read(100_000):
            count += len(part)
        assert count <= size
    raise ArchiveDamagedError("nothing is wrong with the beginning")


def test_every_method_of_a_zip_is_bounded() -> None:
    """A stream that is read a little unpacks a little, however tightly it is packed."""
    zeros = bytes(24 * 1024**2)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        archive = opened(zipped({"a": zeros}, method), limits=Limits(MOST, ratio=10**8))
        assert archive.has("a")
        with peak(12 * 1024**2), archive.open("a") as stream:
            assert stream.read(1000) == bytes(1000)


class peak:  # noqa: N801
    """Fails if more is allocated within than so many bytes."""

    def __init__(self, most: int) -> None:
        self._most = most

    def __enter__(self) -> None:
        tracemalloc.start()

    def __exit__(self, *_: object) -> None:
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < self._most


class TestBombs:
    def overlapping(self, count: int, step: int | None = None) -> bytes:
        """Members that share a kernel of zeros: each quotes the headers behind its own (D. Fifield)."""
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        kernel = packer.compress(bytes(1024**2)) + packer.flush()
        names = [b"%06d" % number for number in range(count)]
        head = b"PK\3\4" + struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 0, 0, 0, 0, 6, 0)
        body = b""
        for number, name in enumerate(names):  # the extra field quotes the later headers
            behind = 36 * (count - 1 - number)
            body += head[:-2] + struct.pack("<H", min(behind, 0xFFFF)) + name
        entries = b""
        for number, name in enumerate(names):
            fields = (20, 20, 0, 8, 0, 0, 0, len(kernel), 1024**2, 6, 0, 0, 0, 0, 0, 36 * number)
            entries += b"PK\1\2" + struct.pack("<HHHHHHLLLHHHHHLL", *fields) + name
        place = len(body) + len(kernel)
        end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, count, count, len(entries), place, 0)
        return body + kernel + entries + end

    def test_overlapping_members(self) -> None:
        data = self.overlapping(1000)
        with zipfile.ZipFile(io.BytesIO(data)) as reference:
            assert sum(info.file_size for info in reference.infolist()) > 4000 * len(data), "a poor bomb"
        assert "overlap" in damage(lambda: listed(data))
        assert "overlap" in damage(lambda: opened(data).has("000000"))
        assert "overlap" in damage(lambda: opened(data).read("000999"))
        assert len(listed(self.overlapping(1))) == 1

    def test_two_names_of_one_member(self) -> None:
        data = zipped({"a": b"1" * 1000, "b": b"2" * 1000})
        second = entry_at(data, 1)
        assert "overlap" in damage(lambda: listed(patched(data, (second + 42, bytes(4)))))

    def test_members_in_another_order(self) -> None:
        """Nothing says that the directory is in the order of the content."""
        data = zipped({"a": b"1" * 1000, "b": b"2" * 1000})
        first, second, end = entry_at(data), entry_at(data, 1), data.index(b"PK\5\6")
        turned = data[:first] + data[second:end] + data[first:second] + data[end:]
        assert list(contents(opened(turned))) == ["b", "a"]

    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_ratio(self, method: int) -> None:
        """A volume of zeros is read as deflate packs it; what packs more tightly is refused."""
        zeros = bytes(20 * 1024**2)
        data = zipped({"a": zeros, "b": b"2", "small": bytes(1024**2)}, method)
        found = reasons(data)
        assert found["b"] is None
        assert found["small"] is None
        if method == zipfile.ZIP_DEFLATED:
            assert len(zeros) > 1000 * len(data) * 0.9
            assert opened(data).read("a") == zeros
        else:
            assert found["a"] == "it would unpack to more than 1100 times its size"
            damage(lambda: opened(data).read("a"))
        assert reasons(data, limits=Limits(MOST, ratio=10**8))["a"] is None

    def test_a_stated_ratio(self) -> None:
        data = zipped({"a": b"1" * 1000})
        changed = patched(data, (entry_at(data) + 24, struct.pack("<L", MOST)))
        assert reasons(changed)["a"] == "it would unpack to more than 1100 times its size"

    @pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
    def test_ratio_of_a_packed_tar(self, pack: Callable[[bytes], bytes]) -> None:
        zeros = tarred({"a": b"1", "zeros": bytes(20 * 1024**2), "b": b"2"})
        data = pack(zeros)
        assert len(zeros) > 2500 * len(data)
        with peak(30 * 1024**2):
            assert "bomb" in damage(lambda: listed(data, "a.tar.xz"))
        assert opened(data, "a.tar.xz").read("a") == b"1"
        damage(lambda: opened(data, "a.tar.xz").read("zeros"))
        assert len(listed(gzip.compress(zeros), "a.tar.gz")) == 3

    def test_a_tail_that_unpacks_to_much(self) -> None:
        """What follows the end mark is not the archive's: hardly any of it is unpacked."""
        tail = gzip.compress(tarred({"a": b"1"}) + bytes(50 * 1024**2))
        with peak(8 * 1024**2):
            assert listed(tail, "a.tar.gz") == [("a", 1, None)]
        file = CountingFile(gzip.compress(tarred({"a": b"1"}) + noise(8 * 1024**2), 1))
        assert list(open_archive(file, "a.tar.gz", LIMITS).members()) == [("a", 1, None)]
        assert file.count < 2 * 1024**2

    @pytest.mark.parametrize("kind", TARS)
    def test_headers_that_claim_much(self, kind: str) -> None:
        for header_type in (
            tarfile.REGTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            b"g",
            b"S",
        ):
            for claimed in (200 * 1024, 50 * 1024**2, 8 * 1024**3 - 1, 1 << 62, 1 << 80, (1 << 88) - 1):
                info = tarfile.TarInfo("secret")
                info.type, info.size = header_type, claimed
                data = info.tobuf(tarfile.GNU_FORMAT)[-512:] + bytes(2048)
                if kind != "a.tar":
                    packing = {"gz": gzip, "bz2": bz2, "xz": lzma}[kind.rpartition(".")[2]]
                    data = packing.compress(data)
                with peak(16 * 1024**2), pytest.raises(ArchiveError):
                    contents(opened(data, kind))

    def test_a_size_below_zero(self) -> None:
        info = tarfile.TarInfo("secret")
        data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        data[124:136] = b"\xff" * 10 + b"\xfe\x00"
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data)
        damage(lambda: listed(bytes(data) * 3, "a.tar"))

    def test_a_header_of_much(self) -> None:
        for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            data = gzip.compress(tar_of([("x", kind, bytes(30 * 1024**2)), ("a", tarfile.REGTYPE, b"")]), 1)
            with peak(16 * 1024**2):
                damage(lambda data=data: listed(data, "a.tar.gz"))

    def test_headers_before_headers(self) -> None:
        """`tarfile` calls itself for each of them."""
        chain = tar_of([("x", tarfile.GNUTYPE_LONGNAME, b"n\0")])[:1024] * 5_000
        assert listed(chain + tarred({"a": b"1"}), "a.tar") == [("n", 1, None)]

    def test_a_dictionary_that_claims_much(self) -> None:
        data = zipped({"a": b"1" * 1000}, zipfile.ZIP_LZMA)
        properties = 30 + 1 + 5
        with peak(8 * 1024**2):
            assert opened(patched(data, (properties, b"\xff\xff\xff\xff"))).read("a") == b"1" * 1000
        large = lzma.compress(tarred({"a": b"1"}), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 256 * 1024**2}])
        damage(lambda: listed(large, "a.tar.xz"))


class TestFuzz:
    @pytest.mark.parametrize("kind", ALL)
    def test_changed_bytes(self, kind: str) -> None:
        """Only ArchiveError comes out, little memory is taken, and the time is bounded."""
        chance = random.Random(kind)
        files = {"a.png": noise(700), "b/" + "c" * 120: b"text " * 300, "ü.jpg": noise(30), "e": b""}
        originals = [made(kind, files)]
        if kind == "a.zip":
            originals += [zipped(files, zipfile.ZIP_BZIP2), zipped(files, zipfile.ZIP_LZMA)]
        elif kind == "a.tar":
            originals.append(tarred(files, form=tarfile.GNU_FORMAT))
        refused = 0
        limits = Limits(member_bytes=1024**2, total_bytes=16 * 1024**2)
        began = time.process_time()
        with peak(64 * 1024**2):
            for _ in range(300):
                data = mutated(chance.choice(originals), chance)
                if kind in ("a.tar.gz", "a.tar.xz") and chance.random() < 0.5:  # below the packing
                    below = mutated(tarred(files), chance)
                    data = gzip.compress(below, 1) if kind == "a.tar.gz" else lzma.compress(below, preset=0)
                refused += look_at_all(data, kind, limits, files)
        assert refused > 30
        assert time.process_time() - began < 60


def mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 2, 5, 20])):
        place = chance.randrange(len(changed))
        match chance.randrange(6):
            case 0:
                del changed[place : place + chance.randrange(1, 50)]
            case 1:
                changed[place:place] = chance.randbytes(chance.randrange(1, 50))
            case 2:
                changed[place : place + 4] = b"\xff\xff\xff\xff"
            case 3:
                changed[place : place + 8] = bytes(8)
            case _:
                changed[place] = chance.randrange(256)
    return bytes(changed)


def look_at_all(data: bytes, kind: str, limits: Limits, files: dict[str, bytes]) -> int:
    """How many errors come of it."""
    errors = 0
    names = list(files)
    try:
        archive = opened(data, kind, limits)
        for member in archive.members():
            names.append(member.name)
            assert member.size >= 0
            assert "\0" not in member.name
            member.name.encode()
    except ArchiveError:
        errors += 1
    for name in names[:10]:
        try:
            archive = opened(data, kind, limits)
            archive.has(name)
            assert len(archive.read(name)) <= limits.member_bytes
            archive.open(name).read(100)
        except ArchiveError:
            errors += 1
    return errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    for name in ALL:
        (folder / name).write_bytes(made(name, shard()))
    return folder


class TestOpenArchives:
    @pytest.mark.parametrize("kind", ALL)
    def test_threads_share_an_archive(self, folder: Path, kind: str) -> None:
        expected = shard()
        names = list(expected) * 3
        random.Random(0).shuffle(names)
        archives = OpenArchives(lambda path: SlowFile((folder / path).read_bytes()), LIMITS)
        barrier = threading.Barrier(8)

        def read(part: list[str]) -> None:
            barrier.wait()
            for name in part:
                assert archives.has(kind, STAMP, name)
                assert archives.read(kind, STAMP, name) == expected[name]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, [names[start::8] for start in range(8)]))
        archives.close()

    def test_threads_and_few_archives(self, folder: Path) -> None:
        """Archives are closed and opened again under the threads' hands."""
        expected = shard()
        files: list[BinaryIO] = []

        def open_file(path: str) -> BinaryIO:
            files.append((folder / path).open("rb"))
            return files[-1]

        archives = OpenArchives(open_file, LIMITS, most=1)

        def read(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(10):
                name = chance.choice(list(expected))
                assert archives.read(chance.choice(ALL), STAMP, name) == expected[name]

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(read, range(6)))
        assert sum(not file.closed for file in files) <= 1
        archives.close()
        assert all(file.closed for file in files)
        assert archives.read("a.zip", STAMP, "000.cls") == b"0", "it can be used again"
        archives.close()

    def test_most(self, folder: Path) -> None:
        files: list[BinaryIO] = []

        def open_file(path: str) -> BinaryIO:
            files.append((folder / path).open("rb"))
            return files[-1]

        archives = OpenArchives(open_file, LIMITS, most=2)
        for kind in ("a.zip", "a.tar", "a.zip", "a.tar.gz", "a.zip"):
            archives.read(kind, STAMP, "000.cls")
        assert [Path(file.name).name for file in files if not file.closed] == ["a.zip", "a.tar.gz"]
        assert len(files) == 3, "what was used last is opened again"
        archives.close()
        assert all(file.closed for file in files)

    def test_a_changed_file_is_opened_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zip"
        path.write_bytes(zipped({"a": b"old"}))
        archives = OpenArchives(lambda name: (tmp_path / name).open("rb"), LIMITS)
        assert archives.read("a.zip", (1, 1), "a") == b"old"
        path.unlink()
        path.write_bytes(zipped({"a": b"new", "b": b"2"}))
        assert archives.read("a.zip", (1, 1), "a") == b"old"
        assert archives.read("a.zip", (1, 2), "a") == b"new"
        assert archives.has("a.zip", (1, 2), "b")
        archives.close()

    def test_errors_leave_nothing_open(self, tmp_path: Path) -> None:
        (tmp_path / "bad.zip").write_bytes(b"nothing")
        files: list[BinaryIO] = []

        def open_file(path: str) -> BinaryIO:
            files.append((tmp_path / path).open("rb"))
            return files[-1]

        archives = OpenArchives(open_file, LIMITS)
        with pytest.raises(FileNotFoundError):
            archives.read("gone.zip", STAMP, "a")
        damage(lambda: archives.read("bad.zip", STAMP, "a"))
        assert len(files) == 1
        assert files[0].closed

    def test_one_that_cannot_be_opened_is_opened_once(self, tmp_path: Path) -> None:
        """Until its file is another."""
        opened: list[str] = []

        def open_file(path: str) -> BinaryIO:
            opened.append(path)
            return (tmp_path / path).open("rb")

        archives = OpenArchives(open_file, LIMITS)
        for name in ("bad.zip", "bad.tgz"):
            (tmp_path / name).write_bytes(b"nothing")
            for member in ("a", "b", "c"):
                damage(lambda name=name, member=member: archives.has(name, (7, 1), member))
                damage(lambda name=name, member=member: archives.read(name, (7, 1), member))
        assert opened == ["bad.zip", "bad.tgz"]
        (tmp_path / "bad.zip").write_bytes(zipped({"a": b"1"}))
        assert archives.read("bad.zip", (9, 2), "a") == b"1"

    def test_a_broken_file_is_opened_anew(self) -> None:
        files: list[FailingFile] = []

        def open_file(path: str) -> BinaryIO:
            files.append(FailingFile(zipped({"a": b"1"})))
            return files[-1]

        archives = OpenArchives(open_file, LIMITS)
        assert archives.read("a.zip", STAMP, "a") == b"1"
        files[0].fails = True
        with pytest.raises(OSError, match="Input/output"):
            archives.read("a.zip", STAMP, "a")
        assert files[0].closed
        assert archives.read("a.zip", STAMP, "a") == b"1"
        assert len(files) == 2

    def test_waiting_for_memory_holds_nobody_up(self, folder: Path) -> None:
        for kind in ALL:
            archives = OpenArchives(lambda path: (folder / path).open("rb"), LIMITS)
            waiting, go_on = threading.Event(), threading.Event()

            def wait(size: int, waiting: threading.Event = waiting, go_on: threading.Event = go_on) -> None:
                waiting.set()
                assert go_on.wait(HANGS)

            with ThreadPoolExecutor(1) as pool:
                slow = pool.submit(archives.read, kind, STAMP, "001.cls", wait)
                assert waiting.wait(HANGS)
                assert archives.read(kind, STAMP, "002.cls") == b"0"
                go_on.set()
                assert slow.result() == b"1"
            archives.close()

    def test_closed_while_it_is_read(self, folder: Path) -> None:
        archives = OpenArchives(lambda path: (folder / path).open("rb"), LIMITS)
        for kind in ALL:

            def meanwhile(size: int, kind: str = kind) -> None:
                assert archives.read(kind, STAMP, "002.cls", lambda size: archives.close()) == b"0"

            assert archives.read(kind, STAMP, "001.cls", meanwhile) == b"1"

    def test_threads_do_not_make_each_other_begin_again(self) -> None:
        """Two large members of a packed tar, which lie further apart than what is kept."""
        data = made("a.tar.gz", {"a": bytes(20 * 1024**2), "b": bytes(20 * 1024**2)})
        file = CountingFile(data)
        archives = OpenArchives(lambda path: file, LIMITS)
        with ThreadPoolExecutor(4) as pool:
            for size in pool.map(lambda name: len(archives.read("a.tar.gz", STAMP, name)), "abab"):
                assert size == 20 * 1024**2
        assert file.count < 5 * len(data)

    def test_a_packed_tar_is_unpacked_once_by_those_who_ask_in_order(self, tmp_path: Path) -> None:
        files = {f"{number:03}": noise(500_000, number) for number in range(60)}  # more than is kept
        data = made("a.tar.gz", files)
        file = CountingFile(data)
        archives = OpenArchives(lambda path: file, LIMITS)
        names = list(files)
        for first, second in zip(names[1::2], names[::2], strict=True):  # threads are not quite in order
            for name in (first, second):
                assert archives.has("a.tar.gz", STAMP, name)
                assert archives.read("a.tar.gz", STAMP, name) == files[name]
        assert file.count < 1.05 * len(data)
        assert archives.read("a.tar.gz", STAMP, "000") == files["000"]
        assert len(data) < file.count < 1.1 * len(data)
