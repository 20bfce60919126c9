"""What a scan's path means: a file, a member of an archive, a frame."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from scanomaly.models.sources.addresses import Address, candidates, is_plain
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.files import ScanFiles
from scanomaly.worker.encoding.images import ImageFailure
from scanomaly.worker.encoding.places import LocalFolder

LIMIT = 1 << 20


@pytest.mark.parametrize(
    ("path", "meanings"),
    [
        ("no/a.png", [("no/a.png", None, None)]),
        ("axial/12", [("axial/12", None, None)]),
        ("b.nii/axial/012", [("b.nii/axial/012", None, None), ("b.nii", None, "axial/012")]),
        ("a.zip/x.png", [("a.zip/x.png", None, None), ("a.zip", "x.png", None)]),
        (
            "a.TAR.gz/d/b.nii/page/3",
            [
                ("a.TAR.gz/d/b.nii/page/3", None, None),
                ("a.TAR.gz/d/b.nii", None, "page/3"),
                ("a.TAR.gz", "d/b.nii/page/3", None),
                ("a.TAR.gz", "d/b.nii", "page/3"),
            ],
        ),
        (
            "a.zip/axial/1",  # a frame of what is called a.zip, or a file in it
            [("a.zip/axial/1", None, None), ("a.zip", None, "axial/1"), ("a.zip", "axial/1", None)],
        ),
    ],
)
def test_what_a_path_may_mean(path: str, meanings: list[tuple[str, str | None, str | None]]) -> None:
    assert list(candidates(path)) == [Address(*meaning) for meaning in meanings]
    assert is_plain(path) == (len(meanings) == 1)


@pytest.fixture
def files(tmp_path: Path) -> ScanFiles:
    """A folder in which names lie: folders called as archives and frames, files called as folders."""
    for name in ("axial/12", "folder.zip/axial/1", "plain", "folder.zip/b.png", "x.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("axial/1", "b.png", "v.nii", "empty.png"):
            archive.writestr(name, b"" if name.startswith("empty") else f"zip {name}")
        archive.writestr("large.png", b"x" * (LIMIT + 1))
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as tar:
        for number in range(3):
            member = tarfile.TarInfo(f"d/{number}.png")
            member.size = 5
            tar.addfile(member, io.BytesIO(b"tar %d" % number))
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 and no more")
    return ScanFiles(LocalFolder(tmp_path, False, LIMIT), LIMIT)


@pytest.mark.parametrize(
    ("path", "content", "frame"),
    [
        ("axial/12", b"axial/12", None),
        ("folder.zip/axial/1", b"folder.zip/axial/1", None),
        ("folder.zip/b.png", b"folder.zip/b.png", None),
        ("x.nii/axial/0", b"x.nii", "axial/0"),
        ("plain/frame/3", b"plain", "frame/3"),
        ("a.zip/b.png", b"zip b.png", None),
        ("a.zip/v.nii/coronal/07", b"zip v.nii", "coronal/07"),
        ("t.tar.gz/d/2.png", b"tar 2", None),
        ("t.tar.gz/d/0.png", b"tar 0", None),  # behind: the stream begins again
    ],
)
def test_what_is_there_decides(files: ScanFiles, path: str, content: bytes, frame: str | None) -> None:
    found = files.find(path)
    assert (files.read(found), found.address.frame) == (content, frame)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.zip/gone.png", FailureKind.MISSING),
        ("gone.zip/b.png", FailureKind.MISSING),
        ("a.zip/empty.png", FailureKind.EMPTY),
        ("a.zip/large.png", FailureKind.TOO_LARGE),
        ("broken.zip/b.png", FailureKind.TRUNCATED),
        ("../a.zip/b.png", FailureKind.OUTSIDE_ROOT),
        ("a.zip/../../etc/passwd", FailureKind.OUTSIDE_ROOT),
    ],
)
def test_every_way_to_fail_has_a_kind(files: ScanFiles, path: str, kind: FailureKind) -> None:
    with pytest.raises(ImageFailure) as caught:
        files.read(files.find(path))
    assert caught.value.kind is kind
    assert caught.value.detail.endswith(".")


def test_an_archive_that_is_another_one_now_is_opened_anew(files: ScanFiles, tmp_path: Path) -> None:
    assert files.read(files.find("a.zip/b.png")) == b"zip b.png"
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        archive.writestr("b.png", b"new")
    (tmp_path / "new.zip").rename(tmp_path / "a.zip")
    assert files.read(files.find("a.zip/b.png")) == b"new"
