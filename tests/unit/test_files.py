"""Paths → bytes: nothing outside of the root is read, and every way to fail has a kind."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.files import ScanFiles
from scanomaly.worker.encoding.images import ImageFailure
from scanomaly.worker.encoding.places import LocalFolder

from ..waiting import HANGS

LIMIT = 1 << 30


class Reader:
    """The scans of a folder of this machine, by their paths."""

    def __init__(self, root: Path, follow_links: bool, max_bytes: int) -> None:
        self._files = ScanFiles(LocalFolder(root, follow_links, max_bytes), max_bytes)

    def read(self, path: str, reserve: Callable[[int], None] = lambda size: None) -> bytes:
        return self._files.read(self._files.find(path), reserve)


def failure(root: Path, path: str, follow_links: bool = False, max_bytes: int = LIMIT) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        Reader(root, follow_links, max_bytes).read(path)
    assert caught.value.detail.endswith(".")
    return caught.value


def kind(root: Path, path: str, follow_links: bool = False) -> FailureKind:
    return failure(root, path, follow_links).kind


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`root/` with a scan in it and one in a folder; `outside/` beside it."""
    for name in ("root/a.png", "root/deep/b.png", "outside/secret.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path / "root"


class TestContent:
    def test_whole(self, tmp_path: Path) -> None:
        (tmp_path / "a b ü.jpg").write_bytes(b"content")
        assert Reader(tmp_path, False, LIMIT).read("a b ü.jpg") == b"content"

    def test_missing(self, root: Path) -> None:
        assert kind(root, "gone.jpg") is FailureKind.MISSING
        assert kind(root, "a.png/below.jpg") is FailureKind.MISSING
        assert kind(root.parent / "no-root", "a.png") is FailureKind.MISSING
        (root / "link.jpg").symlink_to("gone.jpg")
        assert kind(root, "link.jpg") is FailureKind.MISSING

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "empty.jpg").touch()
        assert kind(tmp_path, "empty.jpg") is FailureKind.EMPTY

    def test_folder(self, root: Path) -> None:
        before = len(list(Path("/dev/fd").iterdir()))
        for _ in range(5):
            assert kind(root, "deep") is FailureKind.UNREADABLE
            assert kind(root, "") is FailureKind.UNREADABLE
        assert len(list(Path("/dev/fd").iterdir())) == before, "file descriptors leak"

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.jpg")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(kind, tmp_path, "pipe.jpg")
            try:
                assert waiting.result(timeout=HANGS) is FailureKind.UNREADABLE
            finally:  # lets a reader that does block go, so that the test ends
                if not waiting.done():
                    os.close(os.open(tmp_path / "pipe.jpg", os.O_RDWR))

    def test_device(self) -> None:
        assert kind(Path("/dev"), "zero") is FailureKind.UNREADABLE

    def test_impossible_names(self, tmp_path: Path) -> None:
        for follow_links in (False, True):
            assert kind(tmp_path, "nul\0byte.jpg", follow_links) is FailureKind.UNREADABLE
            assert kind(tmp_path, "long" * 100, follow_links) is FailureKind.UNREADABLE

    def test_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "secret.jpg"
        path.write_bytes(b"content")
        path.chmod(0)
        if os.geteuid() == 0:  # root reads everything: refuse in the system call's place

            def refuse(*_: object) -> int:
                raise PermissionError(13, "Permission denied", str(path))

            monkeypatch.setattr(os, "open", refuse)
        assert kind(tmp_path, "secret.jpg") is FailureKind.UNREADABLE
        assert "no permission" in failure(tmp_path, "secret.jpg").detail

    def test_this_process_at_fault_is_no_failure_of_the_scan(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def exhausted(*_: object) -> int:
            raise OSError(24, "Too many open files")

        (tmp_path / "scan.jpg").write_bytes(b"x")
        monkeypatch.setattr(os, "open", exhausted)
        with pytest.raises(OSError, match="Too many open files"):
            Reader(tmp_path, False, LIMIT).read("scan.jpg")


class TestSize:
    def test_too_large_to_read(self, tmp_path: Path) -> None:
        with open(tmp_path / "huge.png", "wb") as file:
            file.truncate(3 * 1024**3)  # sparse
        bad = failure(tmp_path, "huge.png", max_bytes=2 * 1024**3)
        assert bad.kind is FailureKind.TOO_LARGE
        assert "3 GiB" in bad.detail  # known without reading it
        assert "2 GiB" in bad.detail

    def test_the_limit_itself_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "scan.png").write_bytes(b"12345")
        assert Reader(tmp_path, False, 5).read("scan.png") == b"12345"
        bad = failure(tmp_path, "scan.png", max_bytes=4)
        assert (bad.kind, bad.detail) == (
            FailureKind.TOO_LARGE,
            "The file has 5 bytes; the limit is 4 bytes (SCANOMALY_MAX_FILE_BYTES).",
        )

    def test_it_is_told_before_anything_is_read(self, root: Path) -> None:
        told: list[int] = []

        def refuse(size: int) -> None:
            told.append(size)
            raise RuntimeError("no room")

        before = len(list(Path("/dev/fd").iterdir()))
        with pytest.raises(RuntimeError, match="no room"):
            Reader(root, False, LIMIT).read("a.png", refuse)
        assert told == [10]
        assert len(list(Path("/dev/fd").iterdir())) == before

    @pytest.mark.parametrize("change", [b"longer than before", b"short"])
    def test_a_file_that_changes_meanwhile(self, root: Path, change: bytes) -> None:
        with pytest.raises(ImageFailure, match="changed while") as caught:
            Reader(root, False, LIMIT).read("a.png", lambda size: rewrite(root / "a.png", change))
        assert caught.value.kind is FailureKind.UNREADABLE


def rewrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


class TestOutside:
    @pytest.mark.parametrize("follow_links", [False, True])
    @pytest.mark.parametrize(
        "path",
        ["/etc/passwd", "../outside/secret.png", "deep/../../outside/secret.png", "deep/../a.png", "..", "//a.png"],
    )
    def test_absolute_and_dots_are_never_read(self, root: Path, path: str, follow_links: bool) -> None:
        assert kind(root, path, follow_links) is FailureKind.OUTSIDE_ROOT

    @pytest.mark.parametrize(
        ("link", "target", "path"),
        [
            ("link.png", "../outside/secret.png", "link.png"),
            ("folder", "../outside", "folder/secret.png"),
            ("deep/folder", "../../outside", "deep/folder/secret.png"),
            ("link.png", "{root}/../outside/secret.png", "link.png"),
            ("link.png", "/dev/zero", "link.png"),
            ("link.png", "../outside/gone.png", "link.png"),
            ("all", "/", "all/etc/hostname"),
        ],
    )
    def test_links_that_lead_out(self, root: Path, link: str, target: str, path: str) -> None:
        (root / link).symlink_to(target.format(root=root))
        assert kind(root, path) is FailureKind.OUTSIDE_ROOT
        assert "--follow-links" in failure(root, path).detail

    def test_a_link_over_a_link(self, root: Path) -> None:
        (root / "first").symlink_to("second")
        (root / "second").symlink_to("../outside")
        assert kind(root, "first/secret.png") is FailureKind.OUTSIDE_ROOT

    def test_a_folder_whose_name_begins_as_the_roots(self, root: Path) -> None:
        (root.parent / "root-2").mkdir()
        (root.parent / "root-2" / "x.png").write_bytes(b"x")
        (root / "link.png").symlink_to("../root-2/x.png")
        assert kind(root, "link.png") is FailureKind.OUTSIDE_ROOT

    def test_followed_on_demand(self, root: Path) -> None:
        (root / "folder").symlink_to("../outside")
        assert Reader(root, True, LIMIT).read("folder/secret.png") == b"outside/secret.png"

    def test_links_that_stay_inside(self, root: Path) -> None:
        (root / "link.png").symlink_to("deep/b.png")
        (root / "folder").symlink_to(root / "deep")
        files = Reader(root, False, LIMIT)
        assert files.read("link.png") == files.read("folder/b.png") == b"root/deep/b.png"

    @pytest.mark.parametrize("follow_links", [False, True])
    def test_a_loop(self, root: Path, follow_links: bool) -> None:
        (root / "loop.jpg").symlink_to("loop.jpg")
        assert kind(root, "loop.jpg", follow_links) is FailureKind.UNREADABLE
